"""A few may work at once; of those who wait, urgent ones go first, and each kind in the order of arrival.

What becomes urgent while it waits goes to the end of the urgent ones.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from serving.engine.urgency import Urgency


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
    async def turn(self, *, urgent: Urgency) -> AsyncIterator[None]:
        """Wait for a place and hold it while the block runs."""
        await self._take(urgent)
        try:
            yield
        finally:
            self._free += 1
            self._call()

    async def _take(self, urgent: Urgency) -> None:
        called: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        (self._urgent if urgent else self._patient).append(called)
        self._call()
        try:
            with urgent.telling(lambda: self._hurry(called)):
                await called
        except asyncio.CancelledError:
            if called.done() and not called.cancelled():  # it was called, and goes away at the same moment
                self._free += 1
                self._call()
            raise

    def _hurry(self, waiting: asyncio.Future[None]) -> None:
        if waiting in self._patient:
            self._patient.remove(waiting)
            self._urgent.append(waiting)
            self._call()

    def _call(self) -> None:
        for queue, kept in ((self._urgent, 0), (self._patient, self._kept)):
            while self._free > kept and queue:
                called = queue.popleft()
                if not called.done():
                    self._free -= 1
                    called.set_result(None)
