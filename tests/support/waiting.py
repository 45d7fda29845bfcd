"""Waiting for what nothing tells."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable


async def until(holds: Callable[[], Awaitable[bool] | bool], *, within_seconds: float = 30.0) -> float:
    """Look until something holds; returns the seconds that it took.

    Raises:
        TimeoutError: it did not.
    """
    began = time.monotonic()
    async with asyncio.timeout(within_seconds):
        while True:
            held = holds()
            if await held if inspect.isawaitable(held) else held:
                return time.monotonic() - began
            await asyncio.sleep(0.01)


async def settle() -> None:
    """Let everything run that can without time passing: more turns of the loop than any chain of awaits needs."""
    for _ in range(200):
        await asyncio.sleep(0)
