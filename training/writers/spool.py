"""Where a remote writer keeps answers between its steps, so that none is asked for twice.

A spool holds what a service wrote about one user. Whoever erases the user deletes it.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import Protocol

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Spool(Protocol):
    """Named blobs of one piece of work; losing them costs time, and money only where no batch holds them too."""

    def put(self, name: str, data: bytes) -> None:
        """Keep `data` under `name`, whole or not at all."""

    def get(self, name: str) -> bytes | None:
        """Return what is kept under `name`; None when nothing is."""

    def clear(self) -> None:
        """Delete everything; a success when nothing is there."""


class MemorySpool:
    """A spool that ends with the process."""

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}

    def put(self, name: str, data: bytes) -> None:
        """Keep `data` under `name`."""
        self._blobs[name] = data

    def get(self, name: str) -> bytes | None:
        """Return what is kept under `name`; None when nothing is."""
        return self._blobs.get(name)

    def clear(self) -> None:
        """Delete everything."""
        self._blobs.clear()


class DirectorySpool:
    """A spool in a directory of its own, readable by this account alone."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def put(self, name: str, data: bytes) -> None:
        """Keep `data` under `name`: written beside, then renamed."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._path(name)
        with tempfile.NamedTemporaryFile(dir=self._directory, prefix=".partial-", delete=False) as file:
            partial = Path(file.name)
            try:
                file.write(data)
                file.flush()
                partial.replace(path)
            except OSError:
                partial.unlink(missing_ok=True)
                raise

    def get(self, name: str) -> bytes | None:
        """Return what is kept under `name`; None when nothing is."""
        try:
            return self._path(name).read_bytes()
        except FileNotFoundError:
            return None

    def clear(self) -> None:
        """Delete the directory."""
        shutil.rmtree(self._directory, ignore_errors=True)

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot name a spooled answer")
        return self._directory / f"{name}.json"
