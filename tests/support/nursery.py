"""What ``python -m MODULE`` runs, as forks of a process that has imported it all: each costs what it does, no imports.

``python -m tests.support.nursery`` reads JSON lines: ``{"run": [module, arguments], "environment": …, "out": path,
"err": path}`` is answered with the pid of a new process, ``{"look": pid}`` with how it ended, or null while it runs.
It runs no thread and no event loop, so that its forks begin as a process that was started from a shell does. Where the
imports themselves are in question, a test starts an interpreter of its own.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# What a tensor leaves is the system's again, so that a limit of memory is met where it is set.
_ALLOCATION = {"MALLOC_MMAP_THRESHOLD_": "1048576"}


class Nursery:
    """The process that others are forks of; it begins with the first of them."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._one_question = threading.Lock()

    def start(
        self, module: str, *arguments: str, environment: Mapping[str, str], out: Path, err: Path | None = None
    ) -> Forked:
        """Start a module with exactly this environment, no input, and its output at the end of `out` and `err`."""
        run = {"run": [module, arguments], "environment": dict(environment), "out": str(out), "err": str(err or out)}
        return Forked(self, pid=self.ask(run))

    def ask(self, question: dict[str, Any]) -> Any:
        """Return the answer to one line."""
        with self._one_question:
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
        """End the process; its forks must have ended."""
        if self._process is not None:
            self._process.communicate(timeout=30)


class Forked:
    """One process, as `subprocess.Popen` would show it."""

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
                raise TimeoutError(f"the process still runs after {timeout:g} s")
            time.sleep(0.01)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to stop."""
        self.send_signal(signal.SIGTERM)


def _main() -> None:
    _import_everything()
    running: set[int] = set()
    for line in sys.stdin:
        question = json.loads(line)
        if "look" in question:
            pid, status = os.waitpid(question["look"], os.WNOHANG)
            running.discard(pid)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = _fork(question)
            running.add(answer)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    for pid in running:  # tests that were cut off leave no process behind
        os.kill(pid, signal.SIGKILL)


def _import_everything() -> None:
    import training.evaluation
    import training.jobs.worker
    import training.publishing
    import training.trainer  # noqa: F401 - what a worker or a command imports when it first needs it

    for name in [name for name in sys.modules if name.partition(".")[0] == "lorry"]:
        del sys.modules[name]  # it looks at its terminal when it is imported, and each fork has its own


def _fork(question: dict[str, Any]) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setsid()
        os.environ.clear()
        os.environ.update(question["environment"])
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(question[name], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), number)
        module, arguments = question["run"]
        code = _run(module, arguments)
    finally:
        os._exit(code)  # not on as the parent would, whatever happened


def _run(module: str, arguments: Sequence[str]) -> int:
    """Do as ``python -m MODULE ARGUMENTS`` does, and return its exit code."""
    sys.argv[1:] = arguments
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as exc:
        if exc.code is None or isinstance(exc.code, int):
            return exc.code or 0
        sys.stderr.write(f"{exc.code}\n")
        return 1
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]  # there is an exception
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


if __name__ == "__main__":
    _main()
