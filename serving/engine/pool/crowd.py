"""Who is inside, and when the last has left: what a drain waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Crowd:
    """Counts requests from their first look at the pool until their answer was delivered; of one event loop."""

    def __init__(self) -> None:
        self._inside = 0
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return self._inside

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Count one more for the duration of the block."""
        self._inside += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._empty.set()

    async def wait_until_empty(self, timeout_seconds: float) -> bool:
        """Return True as soon as nobody is inside, or False when somebody still is after `timeout_seconds`."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True
