"""One part: a child process with a log file, a health check and a clean way to stop."""

from __future__ import annotations

import asyncio
import os
import pwd
import signal
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import psutil

from lorry.errors import PartDied, PartUnhealthy, PortInUse

_POLL_SECONDS = 0.2
_STOP_POLL_SECONDS = 0.05
_KILL_SECONDS = 10.0
_TAIL_LINES = 15
_LET_GO: list[subprocess.Popen[bytes]] = []  # whoever forgets a child that runs is warned of it


@dataclass(frozen=True, kw_only=True)
class Part:
    """How to run one part.

    `is_healthy` is asked until it says True; it may raise OSError while the part is starting.
    `system_user` is the account to run as when lorry runs as root (PostgreSQL refuses root).
    """

    name: str
    argv: tuple[str, ...]
    log_path: Path
    address: str
    is_healthy: Callable[[], Awaitable[bool]]
    environment: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[int, ...] = ()
    stop_signal: signal.Signals = signal.SIGTERM
    start_timeout_seconds: float = 60.0
    stop_timeout_seconds: float = 20.0
    system_user: str | None = None


class RunningPart:
    """A part that was started, by this command or by another. Stop it with `stop`; `alive` says whether it runs."""

    def __init__(self, part: Part, process: psutil.Process, *, child: subprocess.Popen[bytes] | None = None) -> None:
        self.part = part
        self._process = process
        self._child = child

    @property
    def pid(self) -> int:
        """The process id, which is also its process group's."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process still runs; one that only waits for its parent to notice its end does not."""
        if self._child is not None:
            return self._child.poll() is None
        try:
            return self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    @property
    def exit_code(self) -> int | None:
        """None while the part lives, and for one that another command started: only its parent learns it."""
        return self._child.poll() if self._child is not None else None

    async def wait(self) -> None:
        """Return when the part has ended."""
        while self.alive:  # noqa: ASYNC110 - a process that is no child of ours tells nobody of its end
            await asyncio.sleep(_STOP_POLL_SECONDS)

    async def wait_until_healthy(self) -> float:
        """Return the seconds it took.

        Raises:
            PartDied: when the process ends first; the message ends with the log's last lines.
            PartUnhealthy: when `start_timeout_seconds` pass.
        """
        started = time.monotonic()
        while True:
            if not self.alive:
                code = "" if self.exit_code is None else f" with code {self.exit_code}"
                raise PartDied(self._explain(f"{self.part.name} ended{code} while starting"))
            try:
                if await self.part.is_healthy():
                    return time.monotonic() - started
            except OSError:
                pass  # not listening yet
            if time.monotonic() - started > self.part.start_timeout_seconds:
                seconds = self.part.start_timeout_seconds
                raise PartUnhealthy(self._explain(f"{self.part.name} was not healthy after {seconds:.0f} s"))
            await asyncio.sleep(_POLL_SECONDS)

    async def stop(self) -> None:
        """Ask the part to stop, wait, then kill its whole process group."""
        was_alive = self.alive
        if was_alive:
            with suppress(psutil.NoSuchProcess):
                self._process.send_signal(self.part.stop_signal)
            await self._ended(self.part.stop_timeout_seconds)
        if was_alive or self._child is not None:  # else the group's number may be another's by now
            self._kill_group()
        await self._ended(_KILL_SECONDS)

    def let_go(self) -> None:
        """Leave the part to other commands: it outlives this process, which is its parent."""
        if self._child is not None:
            _LET_GO.append(self._child)

    async def _ended(self, patience_seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self.wait(), patience_seconds)

    def _kill_group(self) -> None:
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # everything ended cleanly

    def _explain(self, what: str) -> str:
        return f"{what}; see {self.part.log_path}\n{tail(self.part.log_path)}"


async def start_part(part: Part) -> RunningPart:
    """Start the process; its output is appended to the log file.

    The child leads its own process group, so a Ctrl-C in the terminal reaches only lorry, which then stops
    the parts in order.

    Raises:
        PortInUse: naming the port and, where it can be seen, the process that holds it.
    """
    for port in part.ports:
        check_port(port, part=part.name)
    with part.log_path.open("ab") as log:
        child = await asyncio.to_thread(_spawn, part, log)
    return RunningPart(part, psutil.Process(child.pid), child=child)


def _spawn(part: Part, log: BinaryIO) -> subprocess.Popen[bytes]:
    """Start the process; not by asyncio, which kills its children with the event loop, and a part may outlive us."""
    return subprocess.Popen(
        part.argv,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env={**os.environ, **part.environment},
        start_new_session=True,
        **run_as(part.system_user),
    )


def stop_orphans(orphans: list[psutil.Process], *, patience_seconds: float = 15.0) -> None:
    """End parts whose owner was killed, with all their children: first asked, then killed."""
    family = [child for orphan in orphans for child in [*_children(orphan), orphan]]
    for orphan in orphans:
        try:
            orphan.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown; the others take it as a request to end
        except psutil.NoSuchProcess:
            pass  # ended meanwhile
    _, stubborn = psutil.wait_procs(family, timeout=patience_seconds)
    for process in stubborn:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            pass
    psutil.wait_procs(stubborn, timeout=patience_seconds)


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def run_as(system_user: str | None) -> dict[str, Any]:
    """Return subprocess arguments that take on an account's user and group, and drop our own groups."""
    if system_user is None:
        return {}
    account = pwd.getpwnam(system_user)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def check_port(port: int, *, part: str) -> None:
    """Raise `PortInUse` unless 127.0.0.1:`port` can be bound now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as exc:
            raise PortInUse(
                f"port {port}, which {part} needs, is in use{_holder(port)}; stop that process or choose other"
                " ports with LORRY_GATEWAY_PORT and LORRY_PORT_BASE",
                field="LORRY_PORT_BASE",
            ) from exc


def _holder(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            bound = connection.laddr[1:2] == (port,)
            if connection.status == psutil.CONN_LISTEN and bound and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        pass  # other people's processes cannot be seen; the port is taken all the same
    return ""


def tail(path: Path, *, lines: int = _TAIL_LINES) -> str:
    """Return the last lines of a log file, indented."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 64 * 1024))
        text = file.read().decode(errors="replace")
    return "\n".join(f"    {line}" for line in text.splitlines()[-lines:])
