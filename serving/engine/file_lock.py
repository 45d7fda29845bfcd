"""A lock that processes of one machine respect, and that the kernel releases when its holder dies.

The lock is ``flock`` on a file that exists only while somebody wants it: a holder removes the file, and
whoever then obtains the removed one notices and starts again.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from time import monotonic

from serving.engine.machine import refusals_of_the_machine
from serving.errors import CacheBusy

_POLL_SECONDS = 0.02
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC


@asynccontextmanager
async def locked(path: Path, *, timeout_seconds: float) -> AsyncIterator[None]:
    """Hold the lock at `path` while the block runs.

    Raises:
        CacheBusy: when somebody else holds it for longer than `timeout_seconds`.
        CacheFull, MachineRefused: when the lock's file cannot be made.
    """
    deadline = monotonic() + timeout_seconds
    while (descriptor := _try_lock(path)) is None:
        if monotonic() > deadline:
            raise CacheBusy(f"{path.name} is held by another process.")
        await asyncio.sleep(_POLL_SECONDS)
    try:
        yield
    finally:
        _release(path, descriptor)


@contextmanager
def lock_if_free(path: Path) -> Iterator[bool]:
    """Yield True and hold the lock at `path`, or yield False when somebody else holds it."""
    descriptor = _try_lock(path)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            _release(path, descriptor)


def _try_lock(path: Path) -> int | None:
    with refusals_of_the_machine():
        descriptor = _open(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_current(path, descriptor):
            return descriptor
    except BlockingIOError:
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _open(path: Path) -> int:
    try:
        return os.open(path, _FLAGS, 0o600)
    except FileNotFoundError:  # somebody cleaned up more than was theirs
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(path, _FLAGS, 0o600)


def _is_current(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _release(path: Path, descriptor: int) -> None:
    path.unlink(missing_ok=True)  # before the lock goes, so that nobody can hold a file that we remove
    os.close(descriptor)
