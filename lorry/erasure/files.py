"""What a LORRY_HOME holds of a user, and its removal: datasets, runs, profiles, and their name in the parts' logs.

What was written for them at a service, by a command that was cut short, is deleted there first. Commands that work on
their files right now are told to stop.
"""

from __future__ import annotations

import asyncio
import json
import mmap
import os
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from kit.errors import LorryError
from kit.whole import write_whole
from lorry.home import Home
from lorry.local.ledger import Ledger
from lorry.processes import process_start
from training.config import DatasetConfig
from training.errors import WriterStale
from training.writers.factory import make_writer
from training.writers.settings import WriterSettings
from training.writers.spool import MemorySpool
from training.writers.state import WriterState

KINDS = ("datasets", "runs", "profiles")
RIVALS = "rivals"
# A shorter id is a word, or a number, that stands in logs for other things.
_SHORTEST_ID_IN_LOGS = 4
_MASK = b"x"


class UserFiles:
    """The files of one user in one home."""

    def __init__(self, home: Home, *, tenant: str, user: str) -> None:
        self._home = home
        self._tenant = tenant
        self._user = user

    def folders(self) -> list[Path]:
        """Return what there is of the user: their folders, and those that a killed command left beside them."""
        beside = re.compile(rf"\.{re.escape(self._user)}-[a-z0-9_]{{8}}")
        found = []
        for kind in KINDS:
            parent = self._home.path / kind / self._tenant
            if parent.is_dir():
                found += [path for path in parent.iterdir() if path.name == self._user or beside.fullmatch(path.name)]
        return sorted(found)

    def count(self) -> int:
        """Return how many files there are of the user."""
        return sum(path.is_file() for folder in self.folders() for path in folder.rglob("*"))

    async def clear(self, writers: WriterSettings | None) -> tuple[int, list[str]]:
        """Remove them; return how many files, and what is waited for instead.

        Raises:
            OSError: something cannot be removed.
        """
        waits_for = [
            f"command {process.pid} on this machine, which was told to stop" for process in self._stop_commands()
        ]
        waits_for += await self._discard_writings(writers)
        waits_for += self._clear_rivals()
        if waits_for:
            return 0, waits_for
        removed = await asyncio.to_thread(self._remove)
        return removed, []

    def _stop_commands(self) -> list[psutil.Process]:
        working = [each for each in self._home.working_on(self._tenant, self._user) if each.pid != os.getpid()]
        for process in working:
            process.send_signal(signal.SIGINT)
        return working

    async def _discard_writings(self, writers: WriterSettings | None) -> list[str]:
        waits_for = []
        for path in sorted(self._home.path.glob(f"datasets/{self._tenant}/{self._user}/writing/*/state.json")):
            try:
                state = WriterState.from_json(json.loads(path.read_bytes()))
            except (OSError, ValueError, KeyError, TypeError, WriterStale):
                continue  # it was cut off while it was written: nothing was submitted after it
            if state.discarded or state.writer.startswith("extractive/"):
                continue
            try:
                kind = state.writer.split("/")[0]
                config = DatasetConfig.model_validate({"writer": kind})
                writer = make_writer(
                    writers or WriterSettings.read(), config, spool=MemorySpool(), key=path.parent.name
                )
                state = await writer.discard(state)
                write_whole(path, json.dumps(state.to_json()))
            except LorryError as exc:
                waits_for.append(f"a question writer's service: {type(exc).__name__}")
                continue
            if not state.discarded:
                waits_for.append("batches at a question writer's service, which are deleted when they end")
        return waits_for

    def _clear_rivals(self) -> list[str]:
        """Remove adapters that ended commands have fetched to compare with; wait for those that run."""
        return [f"command {pid} on this machine, which compares adapters" for pid in clear_rivals(self._home)]

    def _remove(self) -> int:
        removed = self.count()
        for folder in self.folders():
            shutil.rmtree(folder)
        self._home.forget_working_on(self._tenant, self._user)
        Ledger(self._home).users()  # which forgets the command lines of commands that were killed
        with self._home.logs_lock:
            for path in self._home.logs.glob("*.log*"):
                mask(path, self._user)
        return removed


def clear_rivals(home: Home) -> list[int]:
    """Remove the adapters that commands which ended had fetched to compare with; return who still runs and has some."""
    running = []
    parent = home.path / RIVALS
    for folder in parent.iterdir() if parent.is_dir() else ():
        pid = int(folder.name.split("-")[0]) if folder.name.split("-")[0].isdigit() else 0
        if pid and process_start(pid) is not None:
            running.append(pid)
        else:
            with suppress(FileNotFoundError):  # another command is removing it as well
                shutil.rmtree(folder)
    return running


def mask(path: Path, name: str) -> int:
    """Overwrite a name in a log where it stands, which whoever appends to it does not notice; return how often."""
    if len(name) < _SHORTEST_ID_IN_LOGS or path.stat().st_size == 0:
        return 0
    whole = re.compile(rb"(?<![A-Za-z0-9._:-])" + re.escape(name.encode()) + rb"(?![A-Za-z0-9_:-])")
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        places = [found.span() for found in whole.finditer(content)]
        for start, end in places:
            content[start:end] = _MASK * (end - start)
    return len(places)


def owners(home: Home) -> Iterator[tuple[str, str, float]]:
    """Yield (tenant, user, when it was changed last) of every user folder in a home."""
    for kind in KINDS:
        for folder in home.path.glob(f"{kind}/*/*"):
            if folder.is_dir() and not folder.name.startswith("."):
                yield folder.parent.name, folder.name, folder.stat().st_mtime
