"""Long blocking work beside the event loop, ended at its next step when the command is interrupted."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from lorry.output import say

T = TypeVar("T")
_POLL_SECONDS = 0.5


class Interrupted(BaseException):
    """Raised inside the work to end it; a BaseException, so that nothing on the way takes it for a failure."""


async def run_in_thread(work: Callable[[Callable[[], None]], T]) -> T:
    """Run ``work(checkpoint)`` in a thread and return its result.

    `work` calls `checkpoint` between steps; after the caller was cancelled, that raises `Interrupted`.
    """
    stop = threading.Event()

    def checkpoint() -> None:
        if stop.is_set():
            raise Interrupted

    try:
        return await asyncio.to_thread(work, checkpoint)
    except asyncio.CancelledError:
        stop.set()
        say("stopping, when this step is done …")
        raise


@contextmanager
def one_at_a_time(directory: Path, *, checkpoint: Callable[[], None]) -> Iterator[None]:
    """Be the only process that makes `directory` while the block runs; wait for another's end, asking `checkpoint`."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(directory.with_name(f".{directory.name}.lock"))
    while True:
        checkpoint()
        try:
            lock.acquire(timeout=_POLL_SECONDS)
            break
        except Timeout:
            continue
    try:
        yield
    finally:
        lock.release()
