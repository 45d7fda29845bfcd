"""How a worker bears with a database that is away for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from kit.errors import DatabaseUnavailable

T = TypeVar("T")
_PAUSE_SECONDS = 0.2
_MAX_PAUSE_SECONDS = 5.0


async def patiently(work: Callable[[], Awaitable[T]], *, unless: Callable[[], bool] = lambda: False) -> T:
    """Do something again until the database answers, however long that takes.

    Raises:
        DatabaseUnavailable: it does not, and `unless` says that it is waited for no longer.
    """
    pause = _PAUSE_SECONDS
    while True:
        try:
            return await work()
        except DatabaseUnavailable:
            if unless():
                raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, _MAX_PAUSE_SECONDS)
