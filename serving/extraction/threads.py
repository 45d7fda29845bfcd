"""Work in threads that nobody can break off: who is cancelled meanwhile leaves when it has ended, and not before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def to_its_end(work: Callable[[], T]) -> T:
    """Return what `work` returns, done in a thread.

    A caller that is cancelled waits for it all the same: whatever bounds how much runs at once would otherwise be given
    back while the thread goes on.
    """
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
