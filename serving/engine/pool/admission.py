"""Who may come in next: live before batch, adapters within the slots, tenants in turn.

A request that is admitted holds seats and, with everybody else who uses its adapter, one slot, until it is released;
one for the base model holds seats only.
Its laws, kept at every moment and checked by property tests:

- distinct adapters in flight never exceed the slots; those with a batch request never exceed the slots left to batch;
- seats in flight never exceed theirs, and batch requests leave `live_seats` free;
- whoever may be admitted is: nobody waits for something that is free (no lost wake-up);
- whoever waits is admitted after finitely many releases (no starvation): joining an adapter in flight needs no slot
  and passes those who wait for one, but only `turn` times; live goes before batch, but only `live_streak` times;
- a live request that waits for a slot is passed by those only that came less than `patience_seconds` after it: many
  turns of long answers would be minutes.

Batch requests are gathered by adapter: seats that are spread over all slots run dry together, when their adapters have
no more requests and none has given its slot back yet.

One event loop; every method but `admit` is synchronous, so there is nothing to interrupt.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field
from time import monotonic

from kit.errors import LorryError
from serving.engine.pool.fair_queue import FairQueue
from serving.engine.pool.limits import CLASSES, Limits, RequestClass
from serving.errors import AdmissionTimeout, EngineBusy, TooManySequences

_FIRST_GUESS_SECONDS = 1.0
_SMOOTHING = 0.1
_MAX_RETRY_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """What a request asks for.

    Attributes:
        version_id: its adapter; None = the base model, which needs no slot.
        kind: live or batch.
        tenant: an opaque name; requests of equal names share one turn.
        tokens: roughly what it will cost, in tokens; decides only whose turn is next.
        seats: sequences it puts into the engine; more than there are counts as all of them.
    """

    version_id: str | None
    kind: RequestClass = "live"
    tenant: str = ""
    tokens: int = 1
    seats: int = 1


class Place:
    """One request's place: in the queue, then in the engine, then nowhere."""

    def __init__(
        self, ticket: Ticket, *, tokens: int, seats: int, since: float, settle: Callable[[Place], None]
    ) -> None:
        self.ticket = ticket
        self.version_id = ticket.version_id
        self.tenant = ticket.tenant
        self.tokens = tokens
        self.seats = seats
        self.asked_at = since
        self.admitted_at: float | None = None  # while it is in the engine
        self.wait_seconds = 0.0
        self.refusal: LorryError | None = None
        self._settle = settle
        self._number: int | None = None  # while it waits

    @property
    def waiting(self) -> bool:
        """Whether it is still in the queue."""
        return self._number is not None

    @property
    def held(self) -> bool:
        """Whether it was admitted and not released yet."""
        return self.admitted_at is not None


@dataclass
class _InFlight:
    """One adapter in flight: its requests by class, and how many more may join while others wait for a slot."""

    requests: Counter[RequestClass] = field(default_factory=Counter)
    joins: Counter[RequestClass] = field(default_factory=Counter)


class Admission:
    """Decides, for one bounded resource of adapter slots and sequence seats, who holds it."""

    def __init__(self, limits: Limits, *, clock: Callable[[], float] = monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._in_flight: dict[str, _InFlight] = {}
        self._seats: Counter[RequestClass] = Counter()
        self._queues: dict[RequestClass, FairQueue[Place]] = {
            kind: FairQueue(quantum=limits.quantum, gather=kind == "batch") for kind in CLASSES
        }
        self._live_streak = 0
        self._service_seconds = _FIRST_GUESS_SECONDS

    @property
    def in_flight(self) -> frozenset[str]:
        """The adapters that have a request in flight."""
        return frozenset(self._in_flight)

    def require_fit(self, ticket: Ticket) -> None:
        """Refuse what could never have all of its seats at once.

        Raises:
            TooManySequences: naming the bound.
        """
        if ticket.seats > (most := self._limits.seats_of(ticket.kind)):
            raise TooManySequences(
                f"The request is {ticket.seats} sequences at once, and a {ticket.kind} request may be {most} here.",
                field="n",
            )

    def queued(self, kind: RequestClass) -> int:
        """Return how many requests of `kind` wait."""
        return len(self._queues[kind])

    def seats_taken(self, kind: RequestClass) -> int:
        """Return how many seats requests of `kind` have."""
        return self._seats[kind]

    async def admit(self, ticket: Ticket, *, deadline_seconds: float | None = None) -> Place:
        """Return the admitted place of `ticket`, to be given to `release`, once it is its turn or was dismissed.

        A caller that is cancelled while it waits leaves the queue, or gives back what it was given meanwhile.

        Raises:
            EngineBusy: the queue is full; details say `retry_after_seconds`.
            AdmissionTimeout: its turn did not come within `deadline_seconds`.
            LorryError: the reason given to `refuse` while it waited.
        """
        loop = asyncio.get_running_loop()
        settled: asyncio.Future[None] = loop.create_future()

        def settle(_: Place) -> None:
            if not settled.done():  # else the caller was cancelled in the meantime
                settled.set_result(None)

        place = self.ask(ticket, settle=settle)
        if not place.waiting:
            return place
        timer = None
        if deadline_seconds is not None:
            timer = loop.call_later(deadline_seconds, self._time_out, place)
        try:
            await settled
        except asyncio.CancelledError:
            self.release(place)
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if place.refusal is not None:
            raise copy(place.refusal)  # others get the same, and what was raised holds on to people's requests
        return place

    def ask(self, ticket: Ticket, *, settle: Callable[[Place], None]) -> Place:
        """Queue `ticket`, or admit it at once; `settle` is called when a place that waits is admitted or refused.

        Raises:
            EngineBusy: the queue is full; details say `retry_after_seconds`.
        """
        place = Place(
            ticket,
            tokens=max(1, ticket.tokens),
            seats=max(1, min(ticket.seats, self._limits.seats_of(ticket.kind))),
            since=self._clock(),
            settle=settle,
        )
        queue = self._queues[ticket.kind]
        place._number = queue.push(place)
        self._dispatch()
        if place.waiting and len(queue) > self._limits.queue:
            self._shorten(queue, place)
        return place

    def release(self, place: Place) -> None:
        """Give back a place, or leave the queue; further calls do nothing."""
        if place.waiting:
            self._pop(place, charge=False)
        elif place.admitted_at is not None:
            self._service_seconds += _SMOOTHING * (self._clock() - place.admitted_at - self._service_seconds)
            place.admitted_at = None
            self._leave(place)
        self._dispatch()

    def refuse(self, version_id: str, reason: LorryError) -> int:
        """Refuse everybody who waits for `version_id`; returns how many that were."""
        waiting = [place for queue in self._queues.values() for place in queue if place.version_id == version_id]
        for place in waiting:
            self._turn_away(place, reason)
        self._dispatch()
        return len(waiting)

    def dismiss(self, version_id: str) -> None:
        """Let everybody who waits for `version_id` go on without a place: what they get is not `held`."""
        for queue in self._queues.values():
            for place in [place for place in queue if place.version_id == version_id]:
                self._pop(place, charge=False)
                place.wait_seconds = self._clock() - place.asked_at
                place._settle(place)
        self._dispatch()

    def refuse_all(self, reason: LorryError) -> int:
        """Refuse everybody who waits; returns how many that were."""
        waiting = [place for queue in self._queues.values() for place in queue]
        for place in waiting:
            self._turn_away(place, reason)
        return len(waiting)

    def retry_after_seconds(self, kind: RequestClass) -> int:
        """Estimate, from recent service times, when a request refused now could be admitted."""
        ahead = len(self._queues[kind]) + 1
        seconds = ahead * self._service_seconds / self._limits.seats_of(kind)
        return max(1, min(_MAX_RETRY_SECONDS, math.ceil(seconds)))

    def _dispatch(self) -> None:
        """Admit whoever may be, until nobody may."""
        while (place := self._next()) is not None:
            self._enter(place)

    def _next(self) -> Place | None:
        """Return who is next, or None when nobody may be admitted now.

        Who is first for slots but lacks seats is waited for: those behind it would keep it out for ever.
        """
        if sum(self._seats.values()) >= self._limits.seats:
            return None  # nobody, whoever it is: finding out who would take long when many wait
        order: tuple[RequestClass, ...] = ("batch", "live") if self._batch_is_owed() else CLASSES
        for kind in order:
            place = self._first(kind)
            if place is None:
                continue
            if self._has_seats(place):
                return place
            if sum(self._seats.values()) + place.seats > self._limits.seats:
                return None
        return None

    def _first(self, kind: RequestClass) -> Place | None:
        wanted, since = self._slot_wanted(kind), self._live_waits_since()
        in_flight = [  # the longest there first
            version
            for version in self._in_flight
            if self._may_join(version, kind, wanted=wanted, live_waits_since=since)
        ]
        joinable: list[str | None] = [*in_flight]
        with_kind = sum(adapter.requests[kind] > 0 for adapter in self._in_flight.values())
        slot_free = len(self._in_flight) < self._limits.slots and (
            kind == "live" or with_kind < self._limits.slots_of(kind)
        )
        if not slot_free:
            joinable.append(None)  # else the base is found in its turn, like whoever has a slot to go to
        return self._queues[kind].peek(
            joinable=joinable, blocked=self._in_flight.keys() - set(joinable), slot_free=slot_free
        )

    def _may_join(self, version_id: str, kind: RequestClass, *, wanted: bool, live_waits_since: float | None) -> bool:
        adapter = self._in_flight[version_id]
        if kind == "batch" and not adapter.requests["batch"]:
            held = sum(other.requests["batch"] > 0 for other in self._in_flight.values())
            if held >= self._limits.slots_of("batch"):
                return False
        if live_waits_since is not None and self._comes_late(version_id, kind, live_waits_since):
            return False
        return adapter.joins[kind] < self._limits.turn or not wanted

    def _comes_late(self, version_id: str, kind: RequestClass, live_waits_since: float) -> bool:
        """Say whether joining would pass a live request that waits for a slot and has been patient already."""
        until = live_waits_since + self._limits.patience_seconds
        if kind == "batch":
            return self._clock() > until
        joiner = self._queues[kind].first_for(version_id)
        return joiner is not None and joiner.asked_at > until

    def _live_waits_since(self) -> float | None:
        """Return when the live request came that has waited longest for a slot; None when none does."""
        queue = self._queues["live"]
        waiting = (queue.first_for(version) for version in queue.versions if version not in self._in_flight)
        return min((place.asked_at for place in waiting if place and place.version_id), default=None)

    def _slot_wanted(self, kind: RequestClass) -> bool:
        """Say whether somebody whom `kind` must not pass for ever waits for an adapter that is not in flight."""
        watched: tuple[RequestClass, ...] = ("live",) if kind == "live" and not self._batch_is_owed() else CLASSES
        waited_for = (version for name in watched for version in self._queues[name].versions)
        return any(version is not None and version not in self._in_flight for version in waited_for)

    def _batch_is_owed(self) -> bool:
        return self._live_streak >= self._limits.live_streak and len(self._queues["batch"]) > 0

    def _has_seats(self, place: Place) -> bool:
        if sum(self._seats.values()) + place.seats > self._limits.seats:
            return False
        kind = place.ticket.kind
        return kind == "live" or self._seats[kind] + place.seats <= self._limits.seats_of(kind)

    def _enter(self, place: Place) -> None:
        kind = place.ticket.kind
        self._pop(place, charge=True)
        if place.version_id is not None:
            adapter = self._in_flight.setdefault(place.version_id, _InFlight())
            wanted = self._slot_wanted(kind)
            adapter.joins[kind] = adapter.joins[kind] + 1 if wanted else 0
            adapter.requests[kind] += 1
        self._seats[kind] += place.seats
        if kind == "batch":
            self._live_streak = 0
        elif len(self._queues["batch"]):
            self._live_streak += 1
        place.admitted_at = self._clock()
        place.wait_seconds = place.admitted_at - place.asked_at
        place._settle(place)

    def _leave(self, place: Place) -> None:
        kind = place.ticket.kind
        self._seats[kind] -= place.seats
        if place.version_id is None:
            return
        adapter = self._in_flight[place.version_id]
        adapter.requests[kind] -= 1
        if not adapter.requests.total():
            del self._in_flight[place.version_id]

    def _shorten(self, queue: FairQueue[Place], latest: Place) -> None:
        """Turn away the newest request of the tenant that waits with most; `latest` itself when its tenant does."""
        longest = queue.newest_of_longest()
        busy = EngineBusy(retry_after_seconds=self.retry_after_seconds(latest.ticket.kind))
        if queue.length_of(longest.tenant) <= queue.length_of(latest.tenant):
            self._pop(latest, charge=False)
            self._dispatch()
            raise busy
        self._turn_away(longest, busy)
        self._dispatch()

    def _time_out(self, place: Place) -> None:
        if place.waiting:
            self._turn_away(place, AdmissionTimeout(retry_after_seconds=self.retry_after_seconds(place.ticket.kind)))
            self._dispatch()

    def _turn_away(self, place: Place, reason: LorryError) -> None:
        self._pop(place, charge=False)
        place.refusal = reason
        place._settle(place)

    def _pop(self, place: Place, *, charge: bool) -> None:
        assert place._number is not None
        queue = self._queues[place.ticket.kind]
        (queue.take if charge else queue.remove)(place, place._number)
        place._number = None
