"""A few may work at once; of those who wait, urgent ones go first, and each kind in the order of arrival."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """At most so many holders at a time, of one event loop; the last place is for those who are urgent."""

    def __init__(self, places: int) -> None:
        """Offer `places`, of which one is kept for urgent work where there are several."""
        if places < 1:
            raise ValueError("there must be at least one place")
        self._free = places
        self._kept = min(1, places - 1)
        self._urgent: deque[asyncio.Future[None]] = deque()
        self._patient: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def turn(self, *, urgent: bool) -> AsyncIterator[None]:
        """Wait for a place and hold it while the block runs."""
        await self._take(self._urgent if urgent else self._patient)
        try:
            yield
        finally:
            self._free += 1
            self._call()

    async def _take(self, queue: deque[asyncio.Future[None]]) -> None:
        called: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(called)
        self._call()
        try:
            await called
        except asyncio.CancelledError:
            if called.done() and not called.cancelled():  # it was called, and goes away at the same moment
                self._free += 1
                self._call()
            raise

    def _call(self) -> None:
        for queue, kept in ((self._urgent, 0), (self._patient, self._kept)):
            while self._free > kept and queue:
                called = queue.popleft()
                if not called.done():
                    self._free -= 1
                    called.set_result(None)
