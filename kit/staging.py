"""Folders in which something is made before it appears by rename, and what killed processes have left of theirs."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_LEFT_SECONDS = 86_400.0
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@contextmanager
def staging(directory: Path, *, prefix: str) -> Iterator[Path]:
    """Have a new folder in `directory` that only this account may open; it is gone when the block ends, unless renamed.

    Those of the same `prefix` that are a day old and in nobody's use go first: a lock that ends with its process says
    whose is in use, on every machine's own disk and in every container.
    """
    _forget_left(directory, prefix)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=directory))
    descriptor = os.open(folder, _FLAGS)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _forget_left(directory: Path, prefix: str) -> None:
    before = time.time() - _LEFT_SECONDS
    for path in directory.glob(f"{prefix}*"):
        with suppress(OSError):  # it has just gone, it is in use, or it is somebody else's
            if path.stat().st_mtime >= before:
                continue
            descriptor = os.open(path, _FLAGS | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(descriptor)
