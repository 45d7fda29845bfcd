"""Erasing a user: asked for, and followed until nothing is left."""

from __future__ import annotations

from collections.abc import AsyncIterator

from lorry.client.awaited.wire import AsyncWire
from lorry.client.calls import erasures as calls
from lorry.client.results import Erasure


class AsyncErasures:
    """The erasures of the tenant's users."""

    def __init__(self, wire: AsyncWire) -> None:
        self._wire = wire

    async def ask(self, user: str) -> Erasure:
        """Have everything of a user erased, from now on and for good; asked again, it is the same erasure.

        Raises:
            NotFound: when nothing is known of them.
        """
        return await self._wire.send(calls.ask(user))

    async def get(self, user: str) -> Erasure:
        """Return what the erasure has done, store by store, and what it waits for; also when it has ended.

        Raises:
            NotFound: when nobody has asked for it.
        """
        return await self._wire.send(calls.get(user))

    def watch(self, user: str, *, every_seconds: float = 2.0) -> AsyncIterator[Erasure]:
        """Yield the report as it is now, and again whenever it has changed, until nothing is left. Raises as `get`."""
        return self._wire.poll(calls.get(user), until=lambda found: found.ended, every_seconds=every_seconds)
