"""One piece of work for everyone who asks for it at the same time.

Laws: at most one call of the work runs a key; everyone who joined gets its result or its error;
who goes away does not stop it for the rest; an idle key leaves nothing behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class SingleFlight(Generic[Key, Value]):
    """Joins concurrent calls for equal keys, within one event loop."""

    def __init__(self) -> None:
        self._flights: dict[Key, asyncio.Task[Value]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def __contains__(self, key: Key) -> bool:
        flight = self._flights.get(key)
        return flight is not None and not flight.done()

    async def run(self, key: Key, work: Callable[[], Awaitable[Value]]) -> Value:
        """Return what `work` returns, starting it only when no call for `key` is under way.

        The work runs in a task of its own: a caller that is cancelled leaves it running. What has ended is not joined,
        even in the turn of the loop in which it ended: whoever asks then has seen what it left behind.
        """
        if (under_way := self.join(key)) is not None:
            return await under_way
        flight = asyncio.create_task(_call(work))
        self._flights[key] = flight
        flight.add_done_callback(lambda done: self._land(key, done))
        return await asyncio.shield(flight)

    def join(self, key: Key) -> asyncio.Future[Value] | None:
        """Return what ends as the work for `key` that is under way, and may be cancelled; None when there is none."""
        flight = self._flights.get(key)
        return None if flight is None or flight.done() else asyncio.shield(flight)

    def after(self, key: Key, act: Callable[[], None]) -> None:
        """Call `act` when no work for `key` is under way: now, or as soon as it has ended."""
        flight = self._flights.get(key)
        if flight is None:
            act()
        else:
            flight.add_done_callback(lambda _: act())

    def _land(self, key: Key, flight: asyncio.Task[Value]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
        if not flight.cancelled():
            flight.exception()  # marks it as seen: everyone who asked may have gone away


async def _call(work: Callable[[], Awaitable[Value]]) -> Value:
    return await work()
