"""What runs from one home, for which commands, and who may start and stop it now.

A command is entered as a user before it looks what runs; whoever stops parts withdraws them first and looks then who
uses them. One of the two sees the other, so nothing is stopped under anybody, though only starting and stopping take
the lock.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from kit.whole import write_whole
from lorry.errors import HomeBusy
from lorry.home import Home
from lorry.processes import process_start

_POLL_SECONDS = 0.2
_WORDS = 3  # of a command line: enough to be recognised


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One part that was started; `ready` once it can be used, and until it is withdrawn."""

    name: str
    pid: int
    started: float
    address: str
    ready: bool = False

    @property
    def alive(self) -> bool:
        """Whether that very process still runs."""
        return process_start(self.pid) == self.started

    @property
    def process(self) -> psutil.Process | None:
        """That process; None when it has ended."""
        try:
            return psutil.Process(self.pid) if self.alive else None
        except psutil.NoSuchProcess:
            return None


@dataclass(frozen=True, kw_only=True)
class User:
    """A command that uses parts: as many of them, in their order, as `parts` says."""

    key: str
    pid: int
    command: str
    parts: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"pid {self.pid}, `{self.command}`"


class Ledger:
    """Read by every command of a home; written by who starts and stops parts, under the lock."""

    def __init__(self, home: Home) -> None:
        self._home = home.path
        self._folder = home.folder("run")
        self._lock = FileLock(self._folder / "lock")

    # ----- parts

    def entries(self) -> list[Entry]:
        """Return the parts that were started and still run."""
        return [entry for entry in self._read()[0] if entry.alive]

    def kept_for(self) -> frozenset[str]:
        """Return the keys of the users for whom the last command that could have stopped parts left them."""
        return frozenset(self._read()[1])

    def write(self, entries: Sequence[Entry], *, kept_for: Sequence[User] = ()) -> None:
        """Say what runs; only who holds the lock may."""
        value = {"parts": [asdict(entry) for entry in entries], "kept_for": [user.key for user in kept_for]}
        _replace(self._folder / "parts.json", value)

    def _read(self) -> tuple[list[Entry], list[str]]:
        try:
            value = json.loads((self._folder / "parts.json").read_text())
            return [Entry(**entry) for entry in value["parts"]], list(value["kept_for"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):  # none yet, or another release's
            return [], []

    # ----- users

    def enter(self, parts: Sequence[str], *, key: str | None = None) -> User:
        """Be known as a user of these parts, or as one of other parts than before."""
        pid = os.getpid()
        user = User(key=key or f"{pid}.{uuid.uuid4().hex[:8]}", pid=pid, command=_own_command(), parts=tuple(parts))
        _replace(self._users_folder / user.key, {**asdict(user), "started": process_start(pid)})
        return user

    def leave(self, user: User) -> None:
        """Be known no longer."""
        (self._users_folder / user.key).unlink(missing_ok=True)

    def users(self, *, but: User | None = None) -> list[User]:
        """Return the commands that use parts now; those that were killed are forgotten."""
        found = []
        for path in sorted(self._users_folder.iterdir()):
            if path.name.startswith(".") or (but is not None and path.name == but.key):
                continue
            try:
                value = json.loads(path.read_text())
                started, parts = value.pop("started"), tuple(value.pop("parts"))
                user = User(**value, parts=parts)
            except FileNotFoundError:
                continue  # it has just left
            except (ValueError, KeyError, TypeError):
                path.unlink(missing_ok=True)
                continue
            if started is not None and started == process_start(user.pid):
                found.append(user)
            else:
                path.unlink(missing_ok=True)
        return found

    @property
    def _users_folder(self) -> Path:
        folder = self._folder / "users"
        folder.mkdir(exist_ok=True)
        return folder

    # ----- the lock

    def try_lock(self, doing: str) -> bool:
        """Take the right to start and stop parts, unless somebody has it; `doing` says to others what for."""
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            return False
        holder = {"pid": os.getpid(), "command": _own_command(), "doing": doing, "since": time.time()}
        _replace(self._folder / "holder", holder)
        return True

    def unlock(self) -> None:
        """Give that right back."""
        (self._folder / "holder").unlink(missing_ok=True)
        self._lock.release()

    @asynccontextmanager
    async def locked(
        self, doing: str, *, patience_seconds: float, on_wait: Callable[[str], None], enough: Callable[[], bool]
    ) -> AsyncIterator[bool]:
        """Hold the right to start and stop parts while the block runs; False when waiting made it needless.

        Args:
            doing: what for, as others are told.
            patience_seconds: how long another command is waited for.
            on_wait: told once what is waited for, and who holds it.
            enough: asked while waiting whether the right is needed no longer.

        Raises:
            HomeBusy: another command held it all the time; it says who, and what to do.
        """
        end, told = time.monotonic() + patience_seconds, False
        while not self.try_lock(doing):
            if enough():
                yield False
                return
            if time.monotonic() > end:
                raise HomeBusy(self._refusal(patience_seconds))
            if not told:
                on_wait(f"waiting for {self._who()} …")
                told = True
            await asyncio.sleep(_POLL_SECONDS)
        try:
            yield True
        finally:
            self.unlock()

    def _holder(self) -> dict[str, Any] | None:
        try:
            value: dict[str, Any] = json.loads((self._folder / "holder").read_text())
        except (FileNotFoundError, ValueError):
            return None
        return value

    def _who(self) -> str:
        holder = self._holder()
        if holder is None:
            return f"another lorry command that starts or stops parts of {self._home}"
        return f"`{holder['command']}` (pid {holder['pid']}), which is {holder['doing']} in {self._home}"

    def _refusal(self, waited_seconds: float) -> str:
        holder = self._holder()
        if holder is None:
            return f"waited {waited_seconds:.0f} s for {self._who()}; try again"
        since = max(time.time() - holder["since"], 0.0)
        return (
            f"waited {waited_seconds:.0f} s for {self._who()}, for {since:.0f} s now; try again when it is done, or end"
            f" it with `kill {holder['pid']}` if it hangs (logs are in {self._home / 'logs'})"
        )


def withdrawn(entries: Sequence[Entry], names: Sequence[str]) -> list[Entry]:
    """Return the entries with those of these names marked as not to be used."""
    return [replace(entry, ready=entry.ready and entry.name not in names) for entry in entries]


def _own_command() -> str:
    """Return how this process was called, without options: enough for a person to recognise it."""
    called = Path(sys.argv[0]).name or "python"
    called = "lorry" if called == "cli.py" else called  # as `python -m lorry.cli`
    words = []
    for word in sys.argv[1:_WORDS]:
        if word.startswith("-"):
            break
        words.append(word)
    return " ".join([called, *words])


def _replace(path: Path, value: Any) -> None:
    write_whole(path, json.dumps(value))
