"""The adapter pool: one object that owns every adapter's life in an engine.

A request leases its version from here before vLLM sees it, and gives the lease back when the engine is done with it:

    lease the version → (a place among the arrivals) → a place in host memory → install and stage, once for everybody
    → a slot and seats

What is leased is neither evicted nor erased. Only so many adapters are on their way from elsewhere at once that those
in memory and on this disk find room: a registry or an object store that hangs keeps nobody else waiting. What takes
long (the registry, the disk, the workers) is behind `Store`; everything here is bookkeeping on one event loop.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from time import monotonic

from kit.errors import LorryError
from serving.engine.pool.admission import Admission, Place, Ticket
from serving.engine.pool.erasure import Erasure
from serving.engine.pool.lease import LeaseBook
from serving.engine.pool.limits import CLASSES, Limits, RequestClass
from serving.engine.pool.observer import Found, Observer, Reason
from serving.engine.pool.places import Places
from serving.engine.pool.pool_lease import PoolLease
from serving.engine.pool.slot_map import SlotMap
from serving.engine.pool.store import Store
from serving.engine.pool.tier import Entry, Tier
from serving.engine.single_flight import SingleFlight
from serving.errors import AdapterClosed, AdapterInUse, AdmissionTimeout, TierFull

_ENOUGH_SEATS = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Holding:
    """One version in host memory; `slot` is the device slot that it has as well, if any."""

    version_id: str
    size_bytes: int
    leases: int
    pinned: bool
    in_flight: bool
    slot: int | None = None


class AdapterPool:
    """Admits requests, keeps host memory within its bounds, and takes adapters out when nobody uses them."""

    def __init__(
        self,
        store: Store,
        *,
        limits: Limits,
        host: Tier,
        host_entries: int,
        host_live_entries: int,
        arrivals: int,
        observer: Observer | None = None,
        on_used: Callable[[str], None] = lambda version_id: None,
    ) -> None:
        """Describe an empty pool.

        Args:
            store: does what takes long.
            limits: slots and seats of the engine.
            host: host memory; bounded by bytes as well.
            host_entries: distinct adapters that requests may hold in host memory at once: at most the tier's entries
                less those that may be pinned, so that whoever is admitted finds room.
            host_live_entries: of these, how many batch requests never hold.
            arrivals: distinct adapters that may be on their way from the registry at once; with `host_entries` less
                the slots or fewer, whoever needs no registry never waits for those who do.
            observer: hears of everything that is counted.
            on_used: hears of the version of every request that may run.
        """
        self._store = store
        self._on_used = on_used
        self._observer = observer or Observer()
        self._host = host
        self._slots = Admission(limits)
        unseated = replace(limits, seats=_ENOUGH_SEATS, live_seats=0)
        self._rooms = Admission(replace(unseated, slots=host_entries, live_slots=host_live_entries))
        self._arrivals = Admission(replace(unseated, slots=arrivals, live_slots=min(limits.live_slots, arrivals - 1)))
        self._book = LeaseBook()
        self._ready: set[str] = set()
        self._urgent: set[str] = set()
        self._modest: set[str] = set()
        self._flights: SingleFlight[str, Found] = SingleFlight()
        self._erasures: SingleFlight[str, Erasure] = SingleFlight()
        self._in_slots = SlotMap()
        self._banned: set[str] = set()
        self._leases: Counter[RequestClass] = Counter(dict.fromkeys(CLASSES, 0))
        self._stopped: LorryError | None = None

    @property
    def slots(self) -> Admission:
        """The admission to slots and seats, for metrics."""
        return self._slots

    @property
    def host(self) -> Tier:
        """The books of host memory, for metrics; what is on its way has a place there already."""
        return self._host

    @property
    def in_slots(self) -> SlotMap:
        """The versions that device slots hold, as far as the workers have told."""
        return self._in_slots

    def leases(self, kind: RequestClass) -> int:
        """Return how many requests of `kind` hold a lease and may run."""
        return self._leases[kind]

    def leases_of(self, version_id: str) -> int:
        """Return how many hold on to a version, those that still wait for it included."""
        return self._book.count(version_id)

    def queued(self, kind: RequestClass) -> int:
        """Return how many requests of `kind` wait for others' arrivals, for room, a slot or seats."""
        return sum(admission.queued(kind) for admission in self._admissions)

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
            LorryError: the reason given to `stop`; or why the version cannot be had: only those who ask for it hear
                that.
        """
        self.require_admitting()
        lease = self._book.lease(ticket.version_id, abort=abort)
        self._host.hold(ticket.version_id)
        places = Places(deadline_seconds)

        def let_go() -> None:
            self._flights.after(ticket.version_id, places.release)  # who goes away pays for what still arrives
            self._host.let_go(ticket.version_id)

        try:
            found = await self._have(ticket, places)
            self._book.require_open(ticket.version_id)
            self.require_admitting()
            await places.take(self._slots, ticket)
        except BaseException:
            let_go()
            lease.release()
            raise
        waited = places.wait_seconds
        self._leases[ticket.kind] += 1
        self._observer.admitted(ticket.kind, found=found, wait_seconds=waited)
        self._on_used(ticket.version_id)

        def end() -> None:
            self._leases[ticket.kind] -= 1
            let_go()

        return PoolLease(lease, end, wait_seconds=waited, found=found)

    def require_admitting(self) -> None:
        """Refuse everything while the pool is stopped.

        Raises:
            LorryError: the reason given to `stop`.
        """
        if self._stopped is not None:
            raise self._stopped.with_traceback(None)  # or every raise would lengthen it

    def stop(self, reason: LorryError) -> int:
        """Admit nobody any more, and refuse whoever waits; what runs goes on. Returns how many were refused."""
        self._stopped = reason
        return sum(admission.refuse_all(reason) for admission in self._admissions)

    def start(self) -> None:
        """Admit again."""
        self._stopped = None

    async def prefetch(self, version_id: str, *, urgent: bool = False, displace: bool = True) -> bool:
        """Bring a version into host memory before anybody asks, without a slot; True when it was there already.

        Args:
            version_id: what to bring.
            urgent: whether a live request for it is expected any moment: then it is staged before what batch wants.
            displace: whether it may push out what nobody uses now; a request that wants it meanwhile may in any case.

        Raises:
            TierFull: when it would push out what is in use, or without `displace` anything at all.
            LorryError: the reason given to `stop`, or why the version cannot be had.
        """
        self._book.require_open(version_id)
        self.require_admitting()
        if self._host_has(version_id):
            return True
        if version_id in self._flights:
            await self._bring(version_id, urgent=urgent, displace=displace)
            return False
        places = Places(None)
        try:
            await self._have(
                Ticket(version_id=version_id, kind="live" if urgent else "batch"),
                places,
                room_seconds=0.0,
                displace=displace,
            )
        finally:
            self._flights.after(version_id, places.release)
        return False

    async def pin(self, version_id: str) -> None:
        """Bring a version into host memory and keep it there until `unpin`.

        Raises:
            TierFull: when as many are pinned as may be, or there is no room.
            LorryError: why the version cannot be had.
        """
        was_pinned = version_id in self._host.pinned
        self._host.pin(version_id)
        try:
            await self.prefetch(version_id)
        except BaseException:
            if not was_pinned:
                self._host.unpin(version_id)
            raise

    def unpin(self, version_id: str) -> None:
        """Let a version be evicted again."""
        self._host.unpin(version_id)

    async def evict(self, version_id: str, *, reason: Reason = "asked") -> bool:
        """Take a version out of host memory; False when it was not there, or is in use."""
        if version_id not in self._ready or self._book.count(version_id):
            return False
        self._leaves(version_id, reason)
        entry = self._host.remove(version_id)
        await self._drop([entry] if entry else [])
        return True

    async def retire(self, version_id: str) -> bool:
        """Take a version out of host memory because a newer one took its place; not while it is used or pinned."""
        return version_id not in self._host.pinned and await self.evict(version_id, reason="superseded")

    async def erase(
        self,
        version_id: str,
        reason: LorryError | None = None,
        *,
        at_once: bool = False,
        wait_seconds: float | None = None,
        because: Reason = "erased",
    ) -> Erasure:
        """Give no more leases of a version, wait until the last is back, and overwrite it everywhere but on disk.

        Everybody who erases a version at the same time shares one erasure.

        Args:
            version_id: what is erased.
            reason: what requests for it are told from now on.
            at_once: ask those who hold leases to stop, rather than letting them finish.
            wait_seconds: how long to wait for them; None = as long as it takes.
            because: what it is counted under.

        Raises:
            AdapterInUse: when leases are held after `wait_seconds`; nothing was erased, and leases are given again.
            AdapterNotLoaded: when a slot still holds weights afterwards.
        """
        self._banned.add(version_id)
        return await self._take_out(
            version_id, reason or AdapterClosed(), at_once=at_once, wait_seconds=wait_seconds, because=because
        )

    async def withdraw(
        self,
        version_id: str,
        reason: LorryError,
        *,
        at_once: bool = False,
        wait_seconds: float | None = None,
        because: Reason = "withheld",
    ) -> Erasure:
        """Like `erase`, but leases are given again afterwards: whether, is somebody else's to say."""
        return await self._take_out(version_id, reason, at_once=at_once, wait_seconds=wait_seconds, because=because)

    async def _take_out(
        self, version_id: str, reason: LorryError, *, at_once: bool, wait_seconds: float | None, because: Reason
    ) -> Erasure:
        leases = self._book.count(version_id)
        self._book.close(version_id, reason)
        if at_once:
            self._book.abort(version_id, reason)
        return await self._erasures.run(
            version_id, lambda: self._erase(version_id, reason, leases, wait_seconds=wait_seconds, because=because)
        )

    async def _erase(
        self, version_id: str, reason: LorryError, leases: int, *, wait_seconds: float | None, because: Reason
    ) -> Erasure:
        began = monotonic()
        refused = sum(admission.refuse(version_id, reason) for admission in self._admissions)
        try:
            await self._until_free(version_id, wait_seconds=wait_seconds)
            waited_seconds = monotonic() - began
            self._leaves(version_id, because)
            self._host.unpin(version_id)
            removal = await self._store.erase(version_id)
            self._host.abandon(version_id)  # not before: what the workers refuse to erase goes on taking room
            self._in_slots.zeroed(version_id)
        finally:
            if version_id not in self._banned:
                self._book.reopen(version_id)
        return Erasure(
            version_id=version_id,
            leases=leases - refused,
            refused=refused,
            waited_seconds=waited_seconds,
            removal=removal,
        )

    async def _until_free(self, version_id: str, *, wait_seconds: float | None) -> None:
        try:
            async with asyncio.timeout(wait_seconds):
                await self._book.wait_until_free(version_id)
        except TimeoutError as exc:
            self._banned.discard(version_id)
            count = self._book.count(version_id)
            message = f"{count} requests still run on the adapter after {wait_seconds:g} s: wait longer, or abort them."
            raise AdapterInUse(message, leases=count) from exc

    async def reload(self, version_id: str) -> None:
        """Take a version out of host memory as soon as nobody uses it; the next request brings it anew."""
        while version_id in self._ready and not await self.evict(version_id, reason="lost"):
            await self._book.wait_until_free(version_id)

    def activated(self, version_id: str, slot: int) -> None:
        """Note that a step copied a version into a device slot, in place of what was there."""
        if self._in_slots.put(version_id, slot) is not None:
            self._observer.evicted("slot", "room")
        if version_id not in self._ready:  # it left while this was being told
            self._in_slots.remove(version_id)

    def abort(self, version_id: str, reason: LorryError) -> int:
        """Ask everybody who runs on a version to stop; returns how many."""
        return self._book.abort(version_id, reason)

    def held(self) -> frozenset[str]:
        """Return every version of which host memory or a slot's tensors hold weights, whether or not it can be used."""
        return self._in_slots.filled | {entry.version_id for entry in self._host.entries()}

    def holdings(self) -> list[Holding]:
        """Return what host memory holds, the least recently used first."""
        in_flight = self._slots.in_flight
        slots = self._in_slots.slots()
        return [
            Holding(
                version_id=entry.version_id,
                size_bytes=entry.size_bytes,
                leases=self._book.count(entry.version_id),
                pinned=entry.version_id in self._host.pinned,
                in_flight=entry.version_id in in_flight,
                slot=slots.get(entry.version_id),
            )
            for entry in self._host.entries()
            if entry.version_id in self._ready
        ]

    async def _have(
        self, ticket: Ticket, places: Places, *, room_seconds: float | None = None, displace: bool = True
    ) -> Found:
        """Take a place in host memory and bring the version there; returns where it was found.

        Args:
            ticket: what is wanted.
            places: where the place is noted.
            room_seconds: how long to wait for room besides; then it is TierFull.
            displace: whether it may push out others.
        """
        version_id, one = ticket.version_id, replace(ticket, seats=1)
        arrival: Place | None = None
        if version_id not in self._ready and not self._store.at_hand(version_id):
            arrival = await places.take(self._arrivals, one)
        try:
            await places.take(self._rooms, one, within_seconds=room_seconds)
        except AdmissionTimeout as exc:
            if room_seconds is None:
                raise
            raise TierFull("The engine's host memory has no room for the adapter: what it holds is in use.") from exc
        if self._host_has(version_id):
            found: Found = "slot" if version_id in self._in_slots else "host"
        else:
            found = await self._bring(version_id, urgent=ticket.kind == "live", displace=displace)
        if arrival is not None:
            self._arrivals.release(arrival)
        return found

    @property
    def _admissions(self) -> tuple[Admission, ...]:
        return self._arrivals, self._rooms, self._slots

    def _host_has(self, version_id: str) -> bool:
        """Say whether a version can be named now, and if so count it as just used."""
        return version_id in self._ready and self._host.touch(version_id)

    def _leaves(self, version_id: str, reason: Reason) -> None:
        """Note that a version leaves host memory, and with it its slot, unless it did so before."""
        if version_id not in self._ready:
            return
        self._ready.remove(version_id)
        self._observer.evicted("host", reason)
        if self._in_slots.remove(version_id):
            self._observer.evicted("slot", reason)

    async def _bring(self, version_id: str, *, urgent: bool, displace: bool) -> Found:
        """Install and stage a version, once for everybody who asks meanwhile; urgent as soon as one of them is.

        It pushes out nothing only while all who ask want that.
        """
        if urgent:
            self._urgent.add(version_id)
        if displace:
            self._modest.discard(version_id)
        elif version_id not in self._flights:
            self._modest.add(version_id)
        try:
            return await self._flights.run(version_id, lambda: self._install_and_stage(version_id))
        finally:
            if version_id not in self._flights:
                self._urgent.discard(version_id)

    async def _install_and_stage(self, version_id: str) -> Found:
        """Bring one version, holding a lease of its own: whoever asked may have gone away, and erasing must wait."""
        if version_id in self._ready:
            return "host"
        lease = self._book.lease(version_id)
        self._host.hold(version_id)
        try:
            with self._observer.loading(version_id) as load:
                size_bytes = await self._store.install(version_id, urgent=version_id in self._urgent)
                self._book.require_open(version_id)
                await self._make_room(version_id, size_bytes)
                await self._store.stage(version_id, urgent=version_id in self._urgent)
            self._ready.add(version_id)
        except BaseException:
            self._store.abandon(version_id)
            self._host.abandon(version_id)
            raise
        finally:
            self._urgent.discard(version_id)
            self._modest.discard(version_id)
            self._host.let_go(version_id)
            lease.release()
        return load.source

    async def _make_room(self, version_id: str, size_bytes: int) -> None:
        if version_id in self._modest and self._host.leaving(version_id, size_bytes):
            raise TierFull("The engine's host memory has no room for the adapter that is free.")
        leaving = self._host.make_room(version_id, size_bytes)
        for entry in leaving:
            self._leaves(entry.version_id, "room")
        await self._drop(leaving)

    async def _drop(self, entries: list[Entry]) -> None:
        """Drop what left the books, all of it before anything else happens; what the workers keep is put back."""
        dropping = [(entry, self._store.drop(entry.version_id)) for entry in entries]
        for entry, dropped in dropping:
            if not await dropped and entry.version_id not in self._host:
                self._host.adopt(entry)
