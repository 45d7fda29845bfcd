"""Long blocking work beside the event loop, ended at its next step when the command is interrupted."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


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
        raise
