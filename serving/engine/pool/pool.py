"""The adapter pool: one object that owns every adapter's life in an engine.

A request leases its version from here before vLLM sees it, and gives the lease back when the engine is done with it:

    lease the version → a place in host memory → install and stage, once for everybody → a slot and seats

What is leased is neither evicted nor erased. What takes long (the registry, the disk, the workers) is behind
`Store`; everything here is bookkeeping on one event loop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from time import monotonic
from typing import Protocol

from kit.errors import LorryError
from serving.engine.pool.admission import Admission, Place, Ticket
from serving.engine.pool.lease import Lease, LeaseBook
from serving.engine.pool.limits import Limits
from serving.engine.pool.tier import Tier
from serving.engine.single_flight import SingleFlight
from serving.errors import AdapterClosed

_ENOUGH_SEATS = 1 << 30


class Store(Protocol):
    """Where adapters come from and go to."""

    async def install(self, version_id: str) -> int:
        """Put the version's verified files on this host's disk; returns the host memory that it will take, in bytes.

        Raises:
            LorryError: why it cannot be had.
        """

    async def stage(self, version_id: str, *, urgent: bool) -> None:
        """Bring an installed version into the workers' host memory, and let requests name it.

        Raises:
            LorryError: why it cannot be loaded.
        """

    async def drop(self, version_id: str) -> None:
        """Take a version out of the workers' memory and slots; no request can name it, from the first moment on.

        Never raises: what cannot be dropped is logged, and dropped again with the next.
        """

    async def erase(self, version_id: str) -> None:
        """Like `drop`; then overwrite it everywhere, check that, and delete its files."""


@dataclass(frozen=True, kw_only=True)
class Holding:
    """One version in host memory."""

    version_id: str
    size_bytes: int
    leases: int
    pinned: bool
    in_flight: bool


class PoolLease:
    """A request's right to run: its version stays, and it has its seats."""

    def __init__(self, lease: Lease, release: Callable[[], None], *, wait_seconds: float, was_resident: bool) -> None:
        self._lease = lease
        self._release = release
        self.version_id = lease.version_id
        self.wait_seconds = wait_seconds
        self.was_resident = was_resident

    @property
    def released(self) -> bool:
        """Whether it was given back."""
        return self._lease.released

    def release(self) -> None:
        """Give everything back; further calls do nothing."""
        if not self._lease.released:
            self._release()
            self._lease.release()


class AdapterPool:
    """Admits requests, keeps host memory within its bounds, and takes adapters out when nobody uses them."""

    def __init__(self, store: Store, *, limits: Limits, host: Tier, host_entries: int, host_live_entries: int) -> None:
        """Describe an empty pool.

        Args:
            store: does what takes long.
            limits: slots and seats of the engine.
            host: host memory; bounded by bytes as well.
            host_entries: distinct adapters that requests may hold in host memory at once: at most the tier's entries
                less those that may be pinned, so that whoever is admitted finds room.
            host_live_entries: of these, how many batch requests never hold.
        """
        self._store = store
        self._host = host
        self._slots = Admission(limits)
        waiting = replace(limits, slots=host_entries, live_slots=host_live_entries, seats=_ENOUGH_SEATS, live_seats=0)
        self._rooms = Admission(waiting)
        self._book = LeaseBook()
        self._ready: set[str] = set()
        self._flights: SingleFlight[str, None] = SingleFlight()

    @property
    def slots(self) -> Admission:
        """The admission to slots and seats, for metrics."""
        return self._slots

    @asynccontextmanager
    async def leased(self, ticket: Ticket, *, deadline_seconds: float | None = None) -> AsyncIterator[PoolLease]:
        """Lease for the duration of a block."""
        lease = await self.lease(ticket, deadline_seconds=deadline_seconds)
        try:
            yield lease
        finally:
            lease.release()

    async def lease(
        self,
        ticket: Ticket,
        *,
        deadline_seconds: float | None = None,
        abort: Callable[[LorryError], None] | None = None,
    ) -> PoolLease:
        """Return a lease once the ticket's version is staged and it is the ticket's turn.

        A caller that goes away leaves nothing behind; an adapter that it asked for still arrives.

        Args:
            ticket: what is asked for.
            deadline_seconds: how long to wait for room and for the turn, in all; loading is not cut short.
            abort: called when the version is erased without waiting; must make the caller release soon.

        Raises:
            EngineBusy, AdmissionTimeout: too many wait; the turn did not come in time.
            AdapterClosed: the version is erased or suspended here.
            LorryError: why the version cannot be had: only those who ask for it hear that.
        """
        began = monotonic()
        lease = self._book.lease(ticket.version_id, abort=abort)
        self._host.hold(ticket.version_id)
        places: list[tuple[Admission, Place]] = []

        def let_go() -> None:
            for admission, place in reversed(places):
                admission.release(place)
            self._host.let_go(ticket.version_id)

        async def take(admission: Admission, wanted: Ticket) -> Place:
            left = None if deadline_seconds is None else max(0.0, deadline_seconds - (monotonic() - began))
            place = await admission.admit(wanted, deadline_seconds=left)
            places.append((admission, place))
            return place

        try:
            room = await take(self._rooms, replace(ticket, seats=1))
            was_resident = ticket.version_id in self._ready
            if was_resident:
                self._host.touch(ticket.version_id)
            else:
                await self._bring(ticket.version_id, urgent=ticket.kind == "live")
            self._book.require_open(ticket.version_id)
            place = await take(self._slots, ticket)
        except BaseException:
            let_go()
            lease.release()
            raise
        waited = room.wait_seconds + place.wait_seconds
        return PoolLease(lease, let_go, wait_seconds=waited, was_resident=was_resident)

    async def prefetch(self, version_id: str) -> bool:
        """Bring a version into host memory before anybody asks, without a slot; True when it was there already.

        Raises:
            TierFull: when it would push out what is in use.
            LorryError: why the version cannot be had.
        """
        self._book.require_open(version_id)
        if version_id in self._ready:
            return self._host.touch(version_id)
        await self._bring(version_id, urgent=False)
        return False

    async def pin(self, version_id: str) -> None:
        """Bring a version into host memory and keep it there until `unpin`.

        Raises:
            TierFull: when as many are pinned as may be, or there is no room.
            LorryError: why the version cannot be had.
        """
        self._host.pin(version_id)
        try:
            await self.prefetch(version_id)
        except BaseException:
            self._host.unpin(version_id)
            raise

    def unpin(self, version_id: str) -> None:
        """Let a version be evicted again."""
        self._host.unpin(version_id)

    async def evict(self, version_id: str) -> bool:
        """Take a version out of host memory; False when it was not there, or is in use."""
        if version_id not in self._ready or self._book.count(version_id):
            return False
        self._ready.discard(version_id)
        self._host.remove(version_id)
        await self._store.drop(version_id)
        return True

    async def erase(self, version_id: str, reason: LorryError | None = None, *, at_once: bool = False) -> None:
        """Give no more leases of a version, wait until the last is back, and overwrite it everywhere.

        Args:
            version_id: what is erased.
            reason: what requests for it are told from now on.
            at_once: ask those who hold leases to stop, rather than letting them finish.

        Raises:
            AdapterNotLoaded: when a slot still holds weights afterwards.
        """
        reason = reason or AdapterClosed()
        self._book.close(version_id, reason)
        self._rooms.refuse(version_id, reason)
        self._slots.refuse(version_id, reason)
        if at_once:
            self._book.abort(version_id, reason)
        await self._book.wait_until_free(version_id)
        self._ready.discard(version_id)
        self._host.abandon(version_id)
        self._host.unpin(version_id)
        await self._store.erase(version_id)

    async def withdraw(self, version_id: str, reason: LorryError) -> None:
        """Like `erase`, but leases are given again afterwards: whether, is somebody else's to say."""
        try:
            await self.erase(version_id, reason)
        finally:
            self._book.reopen(version_id)

    async def reload(self, version_id: str) -> None:
        """Take a version out of host memory as soon as nobody uses it; the next request brings it anew."""
        while version_id in self._ready and not await self.evict(version_id):
            await self._book.wait_until_free(version_id)

    def abort(self, version_id: str, reason: LorryError) -> int:
        """Ask everybody who runs on a version to stop; returns how many."""
        return self._book.abort(version_id, reason)

    def holdings(self) -> list[Holding]:
        """Return what host memory holds, the least recently used first."""
        in_flight = self._slots.in_flight
        return [
            Holding(
                version_id=entry.version_id,
                size_bytes=entry.size_bytes,
                leases=self._book.count(entry.version_id),
                pinned=entry.version_id in self._host.pinned,
                in_flight=entry.version_id in in_flight,
            )
            for entry in self._host.entries()
            if entry.version_id in self._ready
        ]

    async def _bring(self, version_id: str, *, urgent: bool) -> None:
        await self._flights.run(version_id, lambda: self._install_and_stage(version_id, urgent=urgent))

    async def _install_and_stage(self, version_id: str, *, urgent: bool) -> None:
        """Bring one version, holding a lease of its own: whoever asked may have gone away, and erasing must wait."""
        if version_id in self._ready:
            return
        lease = self._book.lease(version_id)
        self._host.hold(version_id)
        try:
            size_bytes = await self._store.install(version_id)
            self._book.require_open(version_id)
            leaving = self._host.make_room(version_id, size_bytes)
            self._ready.difference_update(entry.version_id for entry in leaving)
            for entry in leaving:
                await self._store.drop(entry.version_id)
            await self._store.stage(version_id, urgent=urgent)
            self._ready.add(version_id)
        except BaseException:
            self._host.abandon(version_id)
            raise
        finally:
            self._host.let_go(version_id)
            lease.release()
