"""The adapter pool: one object that owns every adapter's life in an engine.

A request leases its version from here before vLLM sees it, and gives the lease back when the engine is done with it:

    lease the version → (a place among the arrivals) → a place in host memory → install and stage, once for everybody
    → a slot and seats

A place in host memory is held by those only who were granted one, so whoever is granted one finds room; where bytes are
what lacks, it waits for those. A request for the base model needs seats, and nothing else. What is leased is neither
evicted nor erased. Only so many adapters are on their way from elsewhere at once that those in memory and on this disk
find room: a registry or an object store that hangs keeps nobody else waiting. Every wait is bounded: so many requests
of each class, each until its deadline. What takes long (the registry, the disk, the workers) is behind `Store`;
everything here is bookkeeping on one event loop.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from copy import copy
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from kit.errors import LorryError
from serving.engine.pool.admission import Admission, Place, Ticket
from serving.engine.pool.erasure import Erasure
from serving.engine.pool.holding import Holding
from serving.engine.pool.lease import LeaseBook
from serving.engine.pool.limits import CLASSES, Limits, RequestClass
from serving.engine.pool.loads import Loads
from serving.engine.pool.lobby import Lobby
from serving.engine.pool.memory import HostMemory
from serving.engine.pool.observer import Found, Observer, Reason
from serving.engine.pool.places import Places
from serving.engine.pool.pool_lease import PoolLease
from serving.engine.pool.slot_map import SlotMap
from serving.engine.pool.store import Store
from serving.engine.pool.tier import Tier
from serving.engine.pool.withdrawals import Withdrawals
from serving.errors import AdmissionTimeout, TierFull

_ENOUGH_SEATS = 1 << 30

Taken = TypeVar("Taken")


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
        self._slots = Admission(limits)
        unseated = replace(limits, seats=_ENOUGH_SEATS, live_seats=0)
        self._rooms = Admission(replace(unseated, slots=host_entries, live_slots=host_live_entries))
        self._arrivals = Admission(replace(unseated, slots=arrivals, live_slots=min(limits.live_slots, arrivals - 1)))
        self._lobby = Lobby(limits.queue, retry_after_seconds=self._slots.retry_after_seconds)
        self._book = LeaseBook()
        self._memory = HostMemory(store, host, observer=self._observer, turn=limits.turn)
        self._loads = Loads(
            store, memory=self._memory, book=self._book, observer=self._observer, on_ended=self._wave_through
        )
        self._withdrawals = Withdrawals(
            store, book=self._book, memory=self._memory, loads=self._loads, refuse=self._refuse
        )
        self._leases: Counter[RequestClass] = Counter(dict.fromkeys(CLASSES, 0))
        self._stopped: LorryError | None = None

    @property
    def slots(self) -> Admission:
        """The admission to slots and seats, for metrics."""
        return self._slots

    @property
    def host(self) -> Tier:
        """The books of host memory, for metrics; what is on its way has a place there already."""
        return self._memory.tier

    @property
    def in_slots(self) -> SlotMap:
        """The versions that device slots hold, as far as the workers have told."""
        return self._memory.in_slots

    def leases(self, kind: RequestClass) -> int:
        """Return how many requests of `kind` hold a lease and may run."""
        return self._leases[kind]

    def leases_of(self, version_id: str) -> int:
        """Return how many hold on to a version, those that still wait for it included."""
        return self._book.count(version_id)

    def queued(self, kind: RequestClass) -> int:
        """Return how many requests of `kind` wait for others' arrivals, for room, a slot or seats."""
        return sum(admission.queued(kind) for admission in self._admissions)

    def loading(self, kind: RequestClass) -> int:
        """Return how many requests of `kind` wait until their adapter has arrived."""
        return self._lobby.waiting(kind)

    async def enter(self, ticket: Ticket, *, deadline_seconds: float | None = None) -> Callable[[], None]:
        """Return what gives everything back, once the ticket's request may run; for the base model, that are seats.

        Raises:
            TooManySequences, EngineBusy, AdmissionTimeout, LorryError: as `lease` does.
        """
        if ticket.version_id is not None:
            return (await self.lease(ticket, deadline_seconds=deadline_seconds)).release
        self.require_admitting()
        self._slots.require_fit(ticket)
        place = await self._slots.admit(ticket, deadline_seconds=deadline_seconds)
        return partial(self._slots.release, place)

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
            ticket: what is asked for; names a version.
            deadline_seconds: how long to wait for room, for the adapter and for the turn, in all.
            abort: called when the version is erased without waiting; must make the caller release soon.

        Raises:
            TooManySequences: the class never has as many seats.
            EngineBusy, AdmissionTimeout: too many wait; the adapter or the turn did not come in time.
            LorryError: the reason given to `stop` or to `withdraw`; or why the version cannot be had:
                only those who ask for it hear that.
        """
        self.require_admitting()
        self._slots.require_fit(ticket)
        version_id = ticket.version_id
        assert version_id is not None
        lease = self._book.lease(version_id, abort=abort)
        places = Places(deadline_seconds)

        def let_go() -> None:
            self._loads.after(version_id, places.release)  # who goes away pays for what still arrives
            lease.release()
            self._memory.room.changed()

        try:
            found = await self._have(ticket, places, held=True)
            self._book.require_open(version_id)
            self.require_admitting()
            await places.take(self._slots, ticket)
        except BaseException:
            let_go()
            raise
        waited = places.wait_seconds
        self._leases[ticket.kind] += 1
        self._observer.admitted(ticket.kind, found=found, wait_seconds=waited)
        self._on_used(version_id)

        def end() -> None:
            self._leases[ticket.kind] -= 1
            let_go()

        return PoolLease(lease, end, wait_seconds=waited, found=found)

    @property
    def admitting(self) -> bool:
        """Whether anybody is admitted."""
        return self._stopped is None

    def require_admitting(self) -> None:
        """Refuse everything while the pool is stopped.

        Raises:
            LorryError: the reason given to `stop`.
        """
        if self._stopped is not None:
            raise copy(self._stopped)  # what was raised holds on to people's requests

    def stop(self, reason: LorryError) -> int:
        """Admit nobody any more, and refuse whoever waits; what runs goes on. Returns how many were refused."""
        self._stopped = reason
        queued = sum(admission.refuse_all(reason) for admission in self._admissions)
        return queued + self._lobby.refuse_all(reason)

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
        if self._memory.use(version_id) is not None:
            return True
        kind: RequestClass = "live" if urgent else "batch"
        if version_id in self._loads:
            arriving = self._loads.bring(version_id, urgent=urgent, displace=displace)
            await self._lobby.wait(version_id, kind, arriving, within_seconds=None)
            return False
        places = Places(None)
        try:
            await self._have(
                Ticket(version_id=version_id, kind=kind), places, held=False, room_seconds=0.0, displace=displace
            )
        finally:
            self._loads.after(version_id, places.release)
        return False

    async def pin(self, version_id: str) -> None:
        """Bring a version into host memory and keep it there until `unpin`.

        Raises:
            TierFull: when as many are pinned as may be, or there is no room.
            LorryError: why the version cannot be had.
        """
        was_pinned = version_id in self.host.pinned
        self.host.pin(version_id)
        try:
            await self.prefetch(version_id)
        except BaseException:
            if not was_pinned:
                self._memory.unpin(version_id)
            raise

    def unpin(self, version_id: str) -> None:
        """Let a version be evicted again."""
        self._memory.unpin(version_id)

    async def evict(self, version_id: str, *, reason: Reason = "asked") -> bool:
        """Take a version out of host memory; False when it was not there, or is in use."""
        if version_id not in self._memory or self._book.count(version_id):
            return False
        try:
            await self._memory.evict(version_id, reason)
        except TierFull:  # who held it is about to let go
            return False
        return True

    async def retire(self, version_id: str) -> bool:
        """Take a version out of host memory because a newer one took its place; not while it is used or pinned."""
        return version_id not in self.host.pinned and await self.evict(version_id, reason="superseded")

    async def withdraw(
        self,
        version_id: str,
        reason: LorryError,
        *,
        at_once: bool = False,
        wait_seconds: float | None = None,
        because: Reason = "withheld",
    ) -> Erasure:
        """Give no lease of a version until the last is back and it is overwritten everywhere but on disk.

        Everybody who takes out a version at the same time shares one withdrawal. Afterwards leases are given again:
        whether it may be had is the registry's to say.

        Args:
            version_id: what is taken out.
            reason: what requests for it are told meanwhile.
            at_once: ask those who hold leases to stop, rather than letting them finish.
            wait_seconds: how long to wait for them; None = as long as it takes.
            because: what it is counted under.

        Raises:
            AdapterInUse: when leases are held after `wait_seconds`; nothing was overwritten.
            AdapterNotLoaded: when a slot still holds weights afterwards.
        """
        return await self._withdrawals.take_out(
            version_id, reason, at_once=at_once, wait_seconds=wait_seconds, because=because
        )

    def activated(self, version_id: str, slot: int) -> None:
        """Note that a step copied a version into a device slot, in place of what was there."""
        self._memory.activated(version_id, slot)

    def abort(self, version_id: str, reason: LorryError) -> int:
        """Ask everybody who runs on a version to stop; returns how many."""
        return self._book.abort(version_id, reason)

    def held(self) -> frozenset[str]:
        """Return every version of which host memory or a slot's tensors hold weights, whether or not it can be used."""
        return self._memory.held()

    def holdings(self) -> list[Holding]:
        """Return what host memory holds, the least recently used first."""
        in_flight = self._slots.in_flight
        slots = self.in_slots.slots()
        return [
            Holding(
                version_id=entry.version_id,
                size_bytes=entry.size_bytes,
                leases=self._book.count(entry.version_id),
                pinned=entry.version_id in self.host.pinned,
                in_flight=entry.version_id in in_flight,
                slot=slots.get(entry.version_id),
            )
            for entry in self.host.entries()
            if entry.version_id in self._memory
        ]

    async def _have(
        self,
        ticket: Ticket,
        places: Places,
        *,
        held: bool,
        room_seconds: float | None = None,
        displace: bool = True,
    ) -> Found:
        """Take a place in host memory and bring the version there; returns where it was found.

        Args:
            ticket: what is wanted.
            places: where the place is noted.
            held: whether the version stays there until the place is given back.
            room_seconds: how long to wait for room besides; then it is TierFull.
            displace: whether it may push out others.
        """
        version_id, kind = ticket.version_id, ticket.kind
        assert version_id is not None
        arrival = await self._enter_memory(replace(ticket, seats=1), version_id, places, room_seconds=room_seconds)
        if held:
            self._memory.hold(version_id)
            places.hold(partial(self._memory.let_go, version_id))
        if (found := self._memory.use(version_id)) is not None:
            return found
        arriving = self._loads.bring(version_id, urgent=kind == "live", displace=displace)
        brought = await self._lobby.wait(version_id, kind, arriving, within_seconds=places.left_seconds())
        if arrival is not None:
            self._arrivals.release(arrival)
        return brought

    async def _enter_memory(
        self, ticket: Ticket, version_id: str, places: Places, *, room_seconds: float | None
    ) -> Place | None:
        """Take a place in host memory; returns the one among the arrivals, for who needs that as well.

        Who finds that its version has left this host meanwhile gives the place in memory back and begins anew: nobody
        has one and waits for an arrival.
        """
        arrival: Place | None = None
        while True:
            if arrival is None and not self._is_near(version_id):
                arrival = await places.take(self._arrivals, ticket)
                if not arrival.held:  # it has arrived meanwhile, or is known not to be had
                    arrival = None
                    continue
            room = await self._in_time(places.take(self._rooms, ticket, within_seconds=room_seconds), room_seconds)
            if version_id in self._memory:
                passing = places.in_time(self._memory.room.pass_by(), within_seconds=room_seconds)
                await self._in_time(passing, room_seconds)
            if arrival is not None or self._is_near(version_id):
                return arrival
            self._rooms.release(room)

    async def _in_time(self, waiting: Coroutine[Any, Any, Taken], room_seconds: float | None) -> Taken:
        try:
            return await waiting
        except AdmissionTimeout as exc:
            if room_seconds is None:
                raise
            raise TierFull("The engine's host memory has no room for the adapter: what it holds is in use.") from exc

    def _is_near(self, version_id: str) -> bool:
        return version_id in self._memory or self._store.at_hand(version_id)

    @property
    def _admissions(self) -> tuple[Admission, ...]:
        return self._arrivals, self._rooms, self._slots

    def _wave_through(self, version_id: str) -> None:
        """Let who queues for the arrival of a version look again: it has arrived, or is known not to be had."""
        if self._is_near(version_id):
            self._arrivals.dismiss(version_id)

    def _refuse(self, version_id: str, reason: LorryError) -> int:
        """Turn away who waits for a version; who waits for its load hears of that one's end. Returns how many."""
        queued = sum(admission.refuse(version_id, reason) for admission in self._admissions)
        return queued + self._lobby.waiting_for(version_id)
