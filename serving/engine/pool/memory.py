"""Host memory: what requests can name, which of that slots hold, and who has to leave for whom."""

from __future__ import annotations

from collections.abc import Sequence

from serving.engine.pool.observer import Found, Observer, Reason
from serving.engine.pool.room_keeper import RoomKeeper
from serving.engine.pool.slot_map import SlotMap
from serving.engine.pool.store import Store
from serving.engine.pool.tier import Entry, Tier


class HostMemory:
    """A tier of adapters in the workers' memory, of one event loop.

    Attributes:
        tier: its books; what is on its way has a place there already.
        room: gives places in it to those who find none.
        in_slots: the versions that device slots hold, as far as the workers have told.
    """

    def __init__(self, store: Store, tier: Tier, *, observer: Observer, turn: int) -> None:
        """Describe an empty memory; `turn` is how many requests may pass an adapter that waits for room."""
        self._store = store
        self._observer = observer
        self._ready: set[str] = set()
        self.tier = tier
        self.room = RoomKeeper(tier, turn=turn)
        self.in_slots = SlotMap()

    def __contains__(self, version_id: object) -> bool:
        return version_id in self._ready

    def use(self, version_id: str) -> Found | None:
        """Count a version as just used, and say where it is; None when it cannot be named now."""
        if version_id not in self._ready or not self.tier.touch(version_id):
            return None
        return "slot" if version_id in self.in_slots else "host"

    def hold(self, version_id: str) -> None:
        """Keep a version here, or its place, until as many calls of `let_go`."""
        self.tier.hold(version_id)

    def let_go(self, version_id: str) -> None:
        """Undo one `hold`."""
        self.tier.let_go(version_id)
        self.room.changed()

    def unpin(self, version_id: str) -> None:
        """Let a version be evicted again."""
        self.tier.unpin(version_id)
        self.room.changed()

    def arrived(self, version_id: str) -> None:
        """Note that a version can be named from now on."""
        self._ready.add(version_id)

    def abandon(self, version_id: str) -> None:
        """Give up the place of a version that did not arrive, or that was erased."""
        self.tier.abandon(version_id)
        self.room.changed()

    def leaves(self, version_id: str, reason: Reason) -> None:
        """Note that a version can be named no more, and with that leaves its slot, unless it did so before."""
        if version_id not in self._ready:
            return
        self._ready.remove(version_id)
        self._observer.evicted("host", reason)
        if self.in_slots.remove(version_id):
            self._observer.evicted("slot", reason)

    async def evict(self, version_id: str, reason: Reason) -> None:
        """Take out a version that nobody holds.

        Raises:
            TierFull: when somebody holds it; it stays.
        """
        entry = self.tier.remove(version_id)
        self.leaves(version_id, reason)
        self.room.changed()
        await self._drop([entry] if entry else [])

    async def displace(self, leaving: Sequence[Entry]) -> None:
        """Drop what the tier's books gave up for something else."""
        for entry in leaving:
            self.leaves(entry.version_id, "room")
        await self._drop(leaving)

    def activated(self, version_id: str, slot: int) -> None:
        """Note that a step copied a version into a device slot, in place of what was there."""
        if self.in_slots.put(version_id, slot) is not None:
            self._observer.evicted("slot", "room")
        if version_id not in self._ready:  # it left while this was being told
            self.in_slots.remove(version_id)

    def held(self) -> frozenset[str]:
        """Return every version of which host memory or a slot's tensors hold weights, whether or not it can be used."""
        return self.in_slots.filled | {entry.version_id for entry in self.tier.entries()}

    async def _drop(self, entries: Sequence[Entry]) -> None:
        """Drop all of it before anything else happens; what the workers keep is put back."""
        dropping = [(entry, self._store.drop(entry.version_id)) for entry in entries]
        for entry, dropped in dropping:
            if not await dropped and entry.version_id not in self.tier:
                self.tier.adopt(entry)
