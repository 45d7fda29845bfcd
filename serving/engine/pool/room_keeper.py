"""Room in host memory for those who may have it and find none yet: in the order of asking, as others let go.

How many adapters requests may hold is admission's to bound; how many bytes those come to is known only when each was
found. So whoever finds the bytes taken waits here. Who comes later takes nothing from it: loads stand behind it, and
requests for adapters that are in memory pass, for they need no room, but only so often, since holding those keeps their
bytes from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from serving.engine.pool.tier import Entry, Tier
from serving.errors import TierFull


class RoomKeeper:
    """Stands before one tier; of one event loop."""

    def __init__(self, tier: Tier, *, turn: int) -> None:
        """Keep the room of `tier`; `turn` is how many may pass whoever waits."""
        self._tier = tier
        self._turn = turn
        self._order = asyncio.Lock()
        self._is_wanted = False
        self._passed = 0
        self._watching: set[asyncio.Future[None]] = set()

    def take(self, version_id: str, size_bytes: int) -> list[Entry] | None:
        """Make room now, as `Tier.make_room` does; None when there is none, or somebody waits for it already."""
        if self._order.locked():
            return None
        try:
            return self._tier.make_room(version_id, size_bytes)
        except TierFull:
            return None

    async def wait(self, version_id: str, size_bytes: int, *, while_: Callable[[], bool]) -> list[Entry]:
        """Make room as soon as there is some.

        Args:
            version_id: what needs it.
            size_bytes: how much.
            while_: whether it is still wanted; looked at before each wait.

        Raises:
            TierFull: when it is not wanted any more, or what is pinned will never leave enough.
        """
        if not while_():
            raise TierFull("The engine's host memory has no room for the adapter: what it holds is in use.")
        async with self._order:
            self._passed, self._is_wanted = 0, True
            try:
                while True:
                    try:
                        return self._tier.make_room(version_id, size_bytes)
                    except TierFull:
                        if not while_() or not self._tier.may_come_to_hold(version_id, size_bytes):
                            raise
                    await self._change()
            finally:
                self._is_wanted = False
                self.changed()

    async def pass_by(self) -> None:
        """Return when a request may hold on to what is in memory: at once, unless others did so often enough."""
        while self._is_wanted and self._passed >= self._turn:
            await self._change()
        self._passed += self._is_wanted

    def changed(self) -> None:
        """Say that something was let go, or is no longer wanted."""
        for watching in self._watching:
            if not watching.done():
                watching.set_result(None)

    async def _change(self) -> None:
        watching: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watching.add(watching)
        try:
            await watching
        finally:
            self._watching.discard(watching)
