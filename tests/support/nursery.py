"""Training workers as forks of a process that has imported everything: a worker costs what it does, not its imports.

``python -m tests.support.nursery`` reads JSON lines: ``{"start": environment, "log": path}`` is answered with the pid
of a new worker, ``{"look": pid}`` with how it ended, or null while it runs. It runs no thread and no event loop, so
that its forks begin as a worker that was started from a shell does.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# What a tensor leaves is the system's again, so that a limit of memory is met where it is set.
_ALLOCATION = {"MALLOC_MMAP_THRESHOLD_": "1048576"}


class Nursery:
    """The process that workers are forks of; it begins with the first of them."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def start(self, environment: dict[str, str], *, log: Path) -> WorkerProcess:
        """Start a worker that has exactly this environment and writes to the end of `log`."""
        return WorkerProcess(self, pid=self.ask({"start": environment, "log": str(log)}))

    def ask(self, question: dict[str, Any]) -> Any:
        """Return the answer to one line."""
        if self._process is None:
            command = [sys.executable, "-m", "tests.support.nursery"]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **_ALLOCATION}
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """End the process; workers must have ended."""
        if self._process is not None:
            self._process.communicate(timeout=30)


class WorkerProcess:
    """One worker, as `subprocess.Popen` would show it."""

    def __init__(self, nursery: Nursery, *, pid: int) -> None:
        self._nursery = nursery
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while it runs."""
        if self.returncode is None:
            self.returncode = self._nursery.ask({"look": self.pid})
        return self.returncode

    def wait(self, timeout: float = 60.0) -> int:
        """Return the exit code once it has ended."""
        end = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise TimeoutError(f"the worker still runs after {timeout:g} s")
            time.sleep(0.01)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to stop."""
        self.send_signal(signal.SIGTERM)


def _main() -> None:
    import training.evaluation
    import training.jobs.__main__
    import training.publishing
    import training.trainer  # noqa: F401 - what a worker imports when it first needs it

    running: set[int] = set()
    for line in sys.stdin:
        question = json.loads(line)
        if "look" in question:
            pid, status = os.waitpid(question["look"], os.WNOHANG)
            running.discard(pid)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = _fork(question["start"], question["log"])
            running.add(answer)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    for pid in running:  # tests that were cut off leave no worker behind
        os.kill(pid, signal.SIGKILL)


def _fork(environment: dict[str, str], log: str) -> int:
    child = os.fork()
    if child:
        return child
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(file, 1)
    os.dup2(file, 2)
    try:
        training_worker()
    finally:
        os._exit(1)  # not on as the parent would, whatever happened


def training_worker() -> None:
    """Run what ``python -m training.jobs`` runs."""
    from training.jobs.__main__ import main

    try:
        main()
    except SystemExit as exc:
        os._exit(exc.code if isinstance(exc.code, int) else 1)
    except BaseException:
        import traceback

        traceback.print_exc()
        raise


if __name__ == "__main__":
    _main()
