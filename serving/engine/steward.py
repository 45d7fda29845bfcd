"""What operators and the gateway can ask of a running engine: where adapters are, and to bring, keep or remove them."""

from __future__ import annotations

from time import monotonic
from typing import Any, Literal, Protocol

from serving.engine.eraser import Eraser, Receipt
from serving.engine.pool.crowd import Crowd
from serving.engine.pool.holding import Holding
from serving.engine.pool.observer import TIERS, Reason, TierName
from serving.engine.pool.pool import AdapterPool
from serving.engine.pool.tier import Entry
from serving.engine.prefetcher import Prefetcher
from serving.errors import AdapterClosed, AdapterInUse, AdapterNotHeld, AdapterPinned, EngineDraining

State = Literal["loaded", "resident", "loading"]


class Disk(Protocol):
    """The disk tier."""

    @property
    def max_bytes(self) -> int:
        """What may be on it."""

    def usage(self) -> list[Entry]:
        """Return what is on it, the least recently used first."""

    async def remove(self, version_id: str, *, reason: Reason) -> int:
        """Delete a version's files; returns how many bytes they had."""


class Steward:
    """The pool, the disk and the eraser, as one."""

    def __init__(self, pool: AdapterPool, *, disk: Disk, eraser: Eraser, crowd: Crowd, slots: int) -> None:
        """Look after them.

        Args:
            pool: leases, host memory and slots.
            disk: the tier below.
            eraser: takes versions out, everywhere.
            crowd: who is inside, whatever it asks for.
            slots: device slots of the engine.
        """
        self._pool = pool
        self._disk = disk
        self._eraser = eraser
        self._crowd = crowd
        self._slots = slots
        self._prefetcher = Prefetcher(pool)

    @property
    def draining(self) -> bool:
        """Whether nobody is admitted."""
        return not self._pool.admitting

    def totals(self, tier: TierName) -> tuple[int, int]:
        """Return how many versions a tier holds, and their bytes; a slot counts the bytes of what is in it."""
        if tier == "disk":
            entries = self._disk.usage()
            return len(entries), sum(entry.size_bytes for entry in entries)
        holdings = [each for each in self._pool.holdings() if tier == "host" or each.slot is not None]
        return len(holdings), sum(each.size_bytes for each in holdings)

    def bounds(self) -> dict[TierName, dict[str, int | None]]:
        """Return what every tier may hold: ``max_bytes``, ``max_adapters``, or both."""
        host = self._pool.host
        return {
            "disk": {"max_bytes": self._disk.max_bytes},
            "host": {"max_bytes": host.max_bytes, "max_adapters": host.max_entries},
            "slot": {"max_adapters": self._slots},
        }

    def inside(self) -> int:
        """Return how many requests have come in and were not answered to the end."""
        return len(self._crowd)

    def residency(self) -> dict[str, Any]:
        """Return what every tier holds and may hold, and how many requests lean on that."""
        tiers, bounds = {}, self.bounds()
        for tier in TIERS:
            count, size_bytes = self.totals(tier)
            tiers[tier] = {"adapters": count, "size_bytes": size_bytes, **bounds[tier]}
        requests = {
            kind: {"leases": self._pool.leases(kind), "queued": self._pool.queued(kind)} for kind in ("live", "batch")
        }
        return {"tiers": tiers, "requests": requests, "inside": len(self._crowd), "draining": self.draining}

    def adapters(self, tier: TierName, *, after: str, limit: int) -> dict[str, Any]:
        """Return one page of the versions in a tier; pass `next` as `after` for the following one.

        Those in host memory and slots come whole, the least recently used first; those on disk by version id.
        """
        if tier != "disk":
            shown = [_shown(each) for each in self._pool.holdings() if tier == "host" or each.slot is not None]
            return {"adapters": shown, "next": None}
        entries = sorted((each for each in self._disk.usage() if each.version_id > after), key=lambda e: e.version_id)
        page = [{"version_id": each.version_id, "size_bytes": each.size_bytes} for each in entries[:limit]]
        return {"adapters": page, "next": page[-1]["version_id"] if len(entries) > limit else None}

    def adapter(self, version_id: str) -> dict[str, Any]:
        """Return where one version is and who uses it; what it left in a slot counts.

        Raises:
            AdapterNotHeld: when it is nowhere here.
        """
        on_disk = next((each.size_bytes for each in self._disk.usage() if each.version_id == version_id), None)
        holding = next((each for each in self._pool.holdings() if each.version_id == version_id), None)
        slot = self._pool.in_slots.find(version_id)
        if on_disk is None and holding is None and slot is None:
            raise AdapterNotHeld(field="version_id")
        return {
            "version_id": version_id,
            "disk_bytes": on_disk,
            "host_bytes": holding.size_bytes if holding else None,
            "slot": slot,
            "leases": self._pool.leases_of(version_id),
            "pinned": bool(holding and holding.pinned),
        }

    async def prefetch(self, version_id: str, *, urgent: bool, wait: bool) -> State:
        """Bring a version into host memory; without `wait` in the background.

        Raises:
            EngineBusy: when as many are under way in the background as may be.
            LorryError: why it cannot be had, when that is waited for.
        """
        is_here = any(each.version_id == version_id for each in self._pool.holdings())
        if wait or is_here:  # which counts as its use: it should still be here when it is asked for
            return "resident" if await self._pool.prefetch(version_id, urgent=urgent) else "loaded"
        self._prefetcher.start(version_id, urgent=urgent)
        return "loading"

    async def pin(self, version_id: str) -> None:
        """Bring a version into host memory and keep it there until it is unpinned or erased.

        Raises:
            PinsFull: when as many are pinned as may be.
            LorryError: why it cannot be had.
        """
        await self._pool.pin(version_id)

    def unpin(self, version_id: str) -> bool:
        """Let a version be evicted again; False when it was not pinned."""
        was_pinned = version_id in self._pool.host.pinned
        self._pool.unpin(version_id)
        return was_pinned

    async def evict(self, version_id: str, tier: Literal["host", "disk"]) -> int:
        """Take a version out of one tier; returns the bytes that this frees there.

        Raises:
            AdapterInUse, AdapterPinned: host memory only, since nobody needs a file that is read.
            AdapterNotHeld: when it is not in that tier.
        """
        if tier == "disk":
            if not (freed_bytes := await self._disk.remove(version_id, reason="asked")):
                raise AdapterNotHeld(f"The engine's disk does not hold {version_id}.", field="version_id")
            return freed_bytes
        holding = next((each for each in self._pool.holdings() if each.version_id == version_id), None)
        if holding is None:
            raise AdapterNotHeld(f"The engine's host memory does not hold {version_id}.", field="version_id")
        if holding.pinned:
            raise AdapterPinned
        if not await self._pool.evict(version_id):
            raise AdapterInUse(leases=self._pool.leases_of(version_id))
        return holding.size_bytes

    async def erase(self, version_id: str, *, abort: bool, wait_seconds: float) -> Receipt:
        """Erase a version everywhere on this engine.

        Whether it may be loaded again is the registry's to say: erase or suspend it there to keep it away.

        Raises:
            AdapterInUse: when requests run on it after `wait_seconds`; nothing was erased.
            AdapterNotLoaded, CacheBusy: naming what could not be done.
        """
        return await self._eraser.take_out(
            version_id,
            AdapterClosed("The adapter is being erased from this engine."),
            because="erased",
            ordered_by="operator",
            files=True,
            abort=abort,
            wait_seconds=wait_seconds,
        )

    def receipts(self) -> list[dict[str, Any]]:
        """Return what was erased or withheld lately, the latest first."""
        return [receipt.to_json() for receipt in self._eraser.receipts()]

    async def drain(self, *, wait_seconds: float) -> dict[str, Any]:
        """Take no new requests, refuse those that wait, and let those that run finish.

        Returns:
            ``drained``: whether nobody is inside any more; ``inside``: how many are; ``refused``: how many waited;
            ``waited_seconds``.
        """
        began = monotonic()
        refused = self._pool.stop(EngineDraining(retry_after_seconds=1))
        drained = await self._crowd.wait_until_empty(timeout_seconds=wait_seconds)
        waited_seconds = round(monotonic() - began, 3)
        return {
            "drained": drained, "inside": len(self._crowd), "refused": refused, "waited_seconds": waited_seconds,
        }  # fmt: skip

    def resume(self) -> None:
        """Take requests again after `drain`."""
        self._pool.start()

    async def close(self) -> None:
        """Stop what runs in the background."""
        await self._prefetcher.close()


def _shown(holding: Holding) -> dict[str, Any]:
    return {
        "version_id": holding.version_id,
        "in_memory": True,
        "size_bytes": holding.size_bytes,
        "leases": holding.leases,
        "pinned": holding.pinned,
        "slot": holding.slot,
    }
