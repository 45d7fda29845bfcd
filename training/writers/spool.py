"""Where a remote writer keeps answers between its steps, so that none is asked for twice.

A spool holds what a service wrote about one user. Whoever erases the user deletes it.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
from pathlib import Path
from typing import Protocol

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Spool(Protocol):
    """Named blobs of one piece of work, kept where its state is kept: who takes that over has paid for these.

    One that is lost was paid for in vain, unless a batch holds it too.
    """

    async def put(self, name: str, data: bytes) -> None:
        """Keep `data` under `name`, whole or not at all; the others are not written anew."""

    async def get(self, name: str) -> bytes | None:
        """Return what is kept under `name`; None when nothing is."""

    async def clear(self) -> None:
        """Delete everything; a success when nothing is there."""


class MemorySpool:
    """A spool that ends with the process."""

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}

    async def put(self, name: str, data: bytes) -> None:
        """Keep `data` under `name`."""
        self._blobs[name] = data

    async def get(self, name: str) -> bytes | None:
        """Return what is kept under `name`; None when nothing is."""
        return self._blobs.get(name)

    async def clear(self) -> None:
        """Delete everything."""
        self._blobs.clear()


class DirectorySpool:
    """A spool in a directory of its own, readable by this account alone."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def put(self, name: str, data: bytes) -> None:
        """Keep `data` under `name`: written beside, then renamed."""
        await asyncio.to_thread(self._put, self._path(name), data)

    async def get(self, name: str) -> bytes | None:
        """Return what is kept under `name`; None when nothing is."""
        return await asyncio.to_thread(_read, self._path(name))

    async def clear(self) -> None:
        """Delete the directory."""
        await asyncio.to_thread(shutil.rmtree, self._directory, ignore_errors=True)

    def _put(self, path: Path, data: bytes) -> None:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile(dir=self._directory, prefix=".partial-", delete=False) as file:
            partial = Path(file.name)
            try:
                file.write(data)
                file.flush()
                partial.replace(path)
            except OSError:
                partial.unlink(missing_ok=True)
                raise

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot name a spooled answer")
        return self._directory / f"{name}.json"


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
