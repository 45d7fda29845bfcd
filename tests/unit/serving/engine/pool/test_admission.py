"""Admission under every order of events that hypothesis thinks of."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from serving.engine.pool.admission import Admission, Place, Ticket
from serving.engine.pool.limits import CLASSES, Limits, RequestClass
from serving.errors import AdapterClosed, AdmissionTimeout, EngineBusy, EngineMisconfigured, TooManySequences

VERSIONS = [f"v{number}" for number in range(6)]
TENANTS = ["red", "green", "blue"]


@st.composite
def some_limits(draw: st.DrawFn) -> Limits:
    slots, seats = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    return Limits(
        slots=slots,
        live_slots=draw(st.integers(0, slots - 1)),
        seats=seats,
        live_seats=draw(st.integers(0, seats - 1)),
        queue=draw(st.integers(1, 12)),
        turn=draw(st.integers(1, 4)),
        patience_seconds=draw(st.floats(0, 5)),
        live_streak=draw(st.integers(1, 4)),
        quantum=draw(st.integers(1, 50)),
    )


some_ticket = st.builds(
    Ticket,
    version_id=st.sampled_from([*VERSIONS, None]),
    kind=st.sampled_from(CLASSES),
    tenant=st.sampled_from(TENANTS),
    tokens=st.integers(0, 200),
    seats=st.integers(0, 8),
)


class AnyOrder(RuleBasedStateMachine):
    """Asks, releases, goes away and refuses in any order, and looks at the laws after each."""

    @initialize(limits=some_limits())
    def start(self, limits: Limits) -> None:
        self.limits = limits
        self.now = 0.0
        self.admission = Admission(limits, clock=lambda: self.now)
        self.places: list[Place] = []
        self.settled: list[Place] = []

    @rule(ticket=some_ticket)
    def ask(self, ticket: Ticket) -> None:
        try:
            self.places.append(self.admission.ask(ticket, settle=self.settled.append))
        except EngineBusy:
            assert self.admission.queued(ticket.kind) == self.limits.queue

    @rule(seconds=st.floats(0, 3))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        place = data.draw(st.sampled_from(self.held))
        self.admission.release(place)
        assert not place.held

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def go_away(self, data: st.DataObject) -> None:
        place = data.draw(st.sampled_from(self.waiting))
        self.admission.release(place)
        assert not place.waiting
        assert not place.held

    @precondition(lambda self: self.places)
    @rule(data=st.data())
    def release_again(self, data: st.DataObject) -> None:
        gone = [place for place in self.places if not place.waiting and not place.held]
        if gone:
            before = self.snapshot()
            self.admission.release(data.draw(st.sampled_from(gone)))
            assert self.snapshot() == before

    @rule(version_id=st.sampled_from(VERSIONS))
    def refuse(self, version_id: str) -> None:
        waiting = [place for place in self.waiting if place.version_id == version_id]
        assert self.admission.refuse(version_id, AdapterClosed()) == len(waiting)
        assert all(isinstance(place.refusal, AdapterClosed) and place in self.settled for place in waiting)

    @property
    def held(self) -> list[Place]:
        return [place for place in self.places if place.held]

    @property
    def waiting(self) -> list[Place]:
        return [place for place in self.places if place.waiting]

    def snapshot(self) -> tuple[Any, ...]:
        return (
            [place.held for place in self.places],
            [place.waiting for place in self.places],
            self.admission.in_flight,
            [self.admission.queued(kind) for kind in CLASSES],
        )

    @invariant()
    def distinct_adapters_fit_the_slots(self) -> None:
        assert self.admission.in_flight == {place.version_id for place in self.held} - {None}
        assert len(self.admission.in_flight) <= self.limits.slots
        batch = {place.version_id for place in self.held if place.ticket.kind == "batch"} - {None}
        assert len(batch) <= self.limits.slots_of("batch")

    @invariant()
    def sequences_fit_the_seats(self) -> None:
        taken = {kind: sum(place.seats for place in self.held if place.ticket.kind == kind) for kind in CLASSES}
        assert taken == {kind: self.admission.seats_taken(kind) for kind in CLASSES}
        assert sum(taken.values()) <= self.limits.seats
        assert taken["batch"] <= self.limits.seats_of("batch")

    @invariant()
    def queues_are_bounded_and_count_right(self) -> None:
        for kind in CLASSES:
            waiting = [place for place in self.waiting if place.ticket.kind == kind]
            assert len(waiting) == self.admission.queued(kind) <= self.limits.queue

    @invariant()
    def nobody_waits_for_what_is_free(self) -> None:
        if not self.held:
            assert not self.waiting
        before = self.snapshot()
        self.admission._dispatch()
        assert self.snapshot() == before

    @invariant()
    def an_idle_slot_and_seats_leave_no_live_request_waiting(self) -> None:
        """Derived without the code's own notions: with nothing owed to batch, live waits only for slots or seats."""
        free_seats = self.limits.seats - sum(place.seats for place in self.held)
        free_slots = self.limits.slots - len(self.admission.in_flight)
        live = [place for place in self.waiting if place.ticket.kind == "live"]
        owed = any(place.ticket.kind == "batch" for place in self.waiting)
        if live and free_slots and not owed:
            assert max(place.seats for place in live) > free_seats
        base = [place.seats for place in live if place.version_id is None]
        if base and not owed:
            assert max(place.seats for place in live) > free_seats, "the base needs no slot"

    @invariant()
    def everyone_who_left_the_queue_was_told(self) -> None:
        for place in self.places:
            if place.held or place.refusal is not None:
                assert place in self.settled


AnyOrder.TestCase.settings = settings(max_examples=120, stateful_step_count=60, deadline=None)
TestAnyOrder = AnyOrder.TestCase


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(limits=some_limits(), victim=some_ticket, seed=st.integers(0, 10**6))
def test_whoever_waits_is_admitted_however_others_press(limits: Limits, victim: Ticket, seed: int) -> None:
    chance = random.Random(seed)
    admission = Admission(limits, clock=lambda: 0.0)
    places: list[Place] = []

    def press(ticket: Ticket) -> None:
        try:
            places.append(admission.ask(ticket, settle=lambda _: None))
        except EngineBusy:
            pass

    def anyone() -> Ticket:
        known = sorted(admission.in_flight) or VERSIONS
        version_id = chance.choice([*known, None] if chance.random() < 0.8 else VERSIONS)
        return Ticket(
            version_id=version_id, kind=chance.choice(CLASSES), tenant=chance.choice(TENANTS),
            tokens=chance.randint(1, 50), seats=chance.randint(1, 2),
        )  # fmt: skip

    for _ in range(12):
        press(anyone())
    try:
        place = admission.ask(victim, settle=lambda _: None)
    except EngineBusy:
        return
    for _ in range(5_000):
        if not place.waiting:
            break
        held = [other for other in places if other.held]
        admission.release(chance.choice(held))
        places = [other for other in places if other.held or other.waiting]
        press(anyone())
    assert not place.waiting


async def test_live_goes_first_when_a_slot_is_freed() -> None:
    admission = Admission(Limits(slots=1, live_slots=0))
    first = await admission.admit(Ticket(version_id="a"))
    order: list[str] = []

    async def go(version_id: str, kind: RequestClass) -> None:
        place = await admission.admit(Ticket(version_id=version_id, kind=kind))
        order.append(version_id)
        admission.release(place)

    async with asyncio.TaskGroup() as group:
        group.create_task(go("batch-1", "batch"))
        group.create_task(go("batch-2", "batch"))
        group.create_task(go("live", "live"))
        await asyncio.sleep(0)
        admission.release(first)
    assert order == ["live", "batch-1", "batch-2"]


async def test_batch_never_holds_the_last_slots() -> None:
    admission = Admission(Limits(slots=3, live_slots=1))
    batch = [admission.ask(Ticket(version_id=name, kind="batch"), settle=lambda _: None) for name in "abc"]
    assert [place.held for place in batch] == [True, True, False]

    live = admission.ask(Ticket(version_id="d"), settle=lambda _: None)
    assert live.held
    joining = admission.ask(Ticket(version_id="d", kind="batch"), settle=lambda _: None)
    assert not joining.held, "a batch request would keep the live slot when the live one ends"


async def test_a_request_for_an_adapter_in_flight_passes_those_that_wait_for_a_slot_but_only_so_often() -> None:
    admission = Admission(Limits(slots=1, turn=3))
    ask = lambda name: admission.ask(Ticket(version_id=name), settle=lambda _: None)  # noqa: E731
    first, waiting = ask("a"), ask("b")
    joined = [ask("a") for _ in range(5)]
    assert [place.held for place in joined] == [True, True, True, False, False]

    for place in [first, *joined[:3]]:
        admission.release(place)
    assert waiting.held
    assert not joined[4].held


async def test_a_live_request_that_waits_for_a_slot_is_passed_by_nobody_who_comes_much_later() -> None:
    now = 0.0
    admission = Admission(Limits(slots=2, live_slots=1, patience_seconds=1.0), clock=lambda: now)
    ask = lambda name, kind="live": admission.ask(Ticket(version_id=name, kind=kind), settle=lambda _: None)  # noqa: E731
    first, batch, waiting = ask("a"), ask("c", "batch"), ask("b")
    now = 0.9
    soon, more = ask("a"), ask("c", "batch")
    assert soon.held
    assert more.held
    now = 1.1
    late, even_more = ask("a"), ask("c", "batch")
    assert not late.held
    assert not even_more.held

    admission.release(first)
    assert not waiting.held
    admission.release(soon)
    assert waiting.held
    assert not late.held
    assert even_more.held, "nobody waits for a slot who has waited so long"
    admission.release(waiting)
    assert late.held
    for place in (batch, more, even_more, late):
        admission.release(place)
    assert not admission.in_flight


async def test_a_crowd_that_came_together_is_served_adapter_by_adapter_however_long_it_takes() -> None:
    now = 0.0
    admission = Admission(Limits(slots=1, patience_seconds=1.0), clock=lambda: now)
    places = [admission.ask(Ticket(version_id=f"v{n % 3}"), settle=lambda _: None) for n in range(30)]
    order: list[str | None] = []
    while held := [place for place in places if place.held]:
        now += 10.0
        order += [place.version_id for place in held]
        for place in held:
            admission.release(place)
    assert order == ["v0"] * 10 + ["v1"] * 10 + ["v2"] * 10


def drain(admission: Admission, kind: RequestClass, *, adapters: int, requests: int) -> tuple[float, int]:
    """Serve requests that arrive interleaved, each for ten steps; returns mean seats taken, and slots taken in all."""
    places: list[Place] = []
    for number in range(requests):
        ticket = Ticket(version_id=f"v{number % adapters}", kind=kind)
        places.append(admission.ask(ticket, settle=lambda _: None))
    taken, steps, slots, before = 0, 0, 0, frozenset[str]()
    age: dict[Place, int] = {}
    while running := [place for place in places if place.held]:
        steps, taken = steps + 1, taken + len(running)
        slots, before = slots + len(admission.in_flight - before), admission.in_flight
        for place in running:
            age[place] = age.get(place, 0) + 1
        for place in [place for place in running if age[place] == 10]:
            admission.release(place)
    assert not any(place.waiting for place in places)
    return taken / steps, slots


async def test_interleaved_batch_work_over_many_adapters_keeps_the_seats_full_and_takes_each_slot_once() -> None:
    limits = Limits(slots=4, live_slots=1, seats=16, live_seats=2)
    seats, slots = drain(Admission(limits), "batch", adapters=32, requests=384)
    assert seats >= 0.96 * 14
    assert slots <= 34


async def test_gathering_one_tenants_adapters_takes_no_turn_from_another() -> None:
    admission = Admission(Limits(slots=2, seats=1, quantum=1))
    current = admission.ask(Ticket(version_id="a", kind="batch", tenant="many"), settle=lambda _: None)
    served: list[Place] = []
    for number in range(10):
        admission.ask(Ticket(version_id="a", kind="batch", tenant="many"), settle=served.append)
        admission.ask(Ticket(version_id=f"b{number}", kind="batch", tenant="few"), settle=served.append)
    for _ in range(10):
        admission.release(current)
        current = served[-1]
    assert 4 <= [place.tenant for place in served].count("few") <= 6


async def test_batch_is_admitted_in_the_end_although_live_never_pauses() -> None:
    admission = Admission(Limits(slots=2, live_slots=1, live_streak=5, turn=3))
    places = [admission.ask(Ticket(version_id=name), settle=lambda _: None) for name in "ab"]
    batch = admission.ask(Ticket(version_id="c", kind="batch"), settle=lambda _: None)
    rounds = 0
    while not batch.held and rounds < 100:
        rounds += 1
        places += [admission.ask(Ticket(version_id=name), settle=lambda _: None) for name in "abde"]
        admission.release(next(place for place in places if place.held))
    assert batch.held
    assert 4 <= rounds < 50


@pytest.mark.parametrize("kind", CLASSES)
async def test_a_request_for_many_seats_is_not_passed_by_small_ones_for_ever(kind: RequestClass) -> None:
    admission = Admission(Limits(slots=4, seats=3))
    held = [admission.ask(Ticket(version_id="a", kind=kind), settle=lambda _: None) for _ in range(3)]
    large = admission.ask(Ticket(version_id="a", kind=kind, seats=3), settle=lambda _: None)
    for _ in range(3):
        small = admission.ask(Ticket(version_id="b", kind="batch"), settle=lambda _: None)
        assert not small.held
        admission.release(held.pop())
    assert large.held


async def test_tenants_share_a_slot_by_tokens_not_by_requests() -> None:
    admission = Admission(Limits(slots=1, quantum=100))
    current = admission.ask(Ticket(version_id="first"), settle=lambda _: None)
    served: list[Place] = []
    for number in range(40):
        admission.ask(Ticket(version_id=f"d{number}", tenant="dear", tokens=300), settle=served.append)
        admission.ask(Ticket(version_id=f"c{number}", tenant="cheap", tokens=100), settle=served.append)
    for _ in range(40):
        admission.release(current)
        current = served[-1]
    tenants = [place.tenant for place in served]
    assert 9 <= tenants.count("dear") <= 11


@pytest.mark.parametrize("kind", CLASSES)
async def test_the_base_takes_seats_and_no_slot_and_keeps_no_adapter_from_its_turn(kind: RequestClass) -> None:
    admission = Admission(Limits(slots=1, seats=4))
    ask = lambda name: admission.ask(Ticket(version_id=name, kind=kind), settle=lambda _: None)  # noqa: E731
    held = [ask("a"), ask(None), ask(None), ask(None)]
    assert all(place.held for place in held)
    waiting = [ask(None), ask("b"), ask(None)]
    assert not any(place.held for place in waiting)
    assert (admission.in_flight, admission.seats_taken(kind)) == ({"a"}, 4)
    for place in held[:2]:
        admission.release(place)
    assert [place.held for place in waiting] == [True, True, False]


async def test_a_turn_costs_all_that_it_asks_for_however_much_that_is() -> None:
    admission = Admission(Limits(slots=1, quantum=100))
    current = admission.ask(Ticket(version_id="first"), settle=lambda _: None)
    served: list[Place] = []
    for number in range(40):
        admission.ask(Ticket(version_id=f"d{number}", tenant="dear", tokens=100_000), settle=served.append)
        admission.ask(Ticket(version_id=f"c{number}", tenant="cheap", tokens=10_000), settle=served.append)
    for _ in range(33):
        admission.release(current)
        current = served[-1]
    assert [place.tenant for place in served].count("dear") == 3


@pytest.mark.parametrize(("kind", "most"), [("live", 8), ("batch", 6)])
async def test_who_wants_more_seats_than_its_class_has_hears_how_many_there_are(kind: RequestClass, most: int) -> None:
    admission = Admission(Limits(slots=1, seats=8, live_seats=2))
    admission.require_fit(Ticket(version_id=None, kind=kind, seats=most))
    with pytest.raises(TooManySequences, match=f"may be {most} here"):
        admission.require_fit(Ticket(version_id="a", kind=kind, seats=most + 1))


async def test_a_full_queue_turns_away_the_tenant_that_waits_with_most() -> None:
    admission = Admission(Limits(slots=1, queue=3))
    await admission.admit(Ticket(version_id="a"))
    greedy = [asyncio.create_task(admission.admit(Ticket(version_id=f"g{n}", tenant="greedy"))) for n in range(3)]
    await asyncio.sleep(0)
    modest = asyncio.create_task(admission.admit(Ticket(version_id="m", tenant="modest")))
    await asyncio.sleep(0)
    with pytest.raises(EngineBusy) as busy:
        await greedy[2]
    assert 1 <= busy.value.details["retry_after_seconds"] <= 60
    with pytest.raises(EngineBusy):
        await admission.admit(Ticket(version_id="g4", tenant="greedy"))
    for task in [*greedy[:2], modest]:
        task.cancel()
    await asyncio.gather(*greedy[:2], modest, return_exceptions=True)
    assert admission.queued("live") == 0


async def test_a_deadline_ends_the_wait_and_leaves_nothing_behind() -> None:
    admission = Admission(Limits(slots=1))
    first = await admission.admit(Ticket(version_id="a"))
    with pytest.raises(AdmissionTimeout):
        await admission.admit(Ticket(version_id="b"), deadline_seconds=0.01)
    admission.release(first)
    assert (admission.queued("live"), admission.in_flight) == (0, frozenset())


async def test_the_wait_is_measured() -> None:
    now = [0.0]
    admission = Admission(Limits(slots=1), clock=lambda: now[0])
    first = await admission.admit(Ticket(version_id="a"))
    second = admission.ask(Ticket(version_id="b"), settle=lambda _: None)
    now[0] = 2.5
    admission.release(first)
    assert (first.wait_seconds, second.wait_seconds) == (0.0, 2.5)


@pytest.mark.parametrize("seed", range(8))
async def test_cancelling_anywhere_loses_no_slot_and_no_wakeup(seed: int) -> None:
    chance = random.Random(seed)
    limits = Limits(slots=2, live_slots=1, seats=3, queue=500)
    admission = Admission(limits)
    done: list[str] = []

    async def use(number: int) -> None:
        ticket = Ticket(
            version_id=chance.choice(VERSIONS), kind=chance.choice(CLASSES), tenant=chance.choice(TENANTS),
            seats=chance.randint(1, 3),
        )  # fmt: skip
        place = await admission.admit(ticket, deadline_seconds=chance.choice([None, None, 0.005]))
        try:
            for _ in range(chance.randint(0, 3)):
                await asyncio.sleep(0)
        finally:
            admission.release(place)
        done.append(ticket.version_id)

    tasks = [asyncio.create_task(use(number)) for number in range(200)]
    for _ in range(300):
        await asyncio.sleep(0)
        if chance.random() < 0.3:
            chance.choice(tasks).cancel()
    outcomes = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)

    assert {type(outcome) for outcome in outcomes} <= {type(None), asyncio.CancelledError, AdmissionTimeout}
    assert len(done) > 50
    assert admission.in_flight == frozenset()
    assert [admission.queued(kind) + admission.seats_taken(kind) for kind in CLASSES] == [0, 0]


@pytest.mark.parametrize("changes", [{"slots": 0}, {"live_slots": 2}, {"seats": 0}, {"live_seats": 64}, {"turn": 0}])
def test_limits_that_would_lock_somebody_out_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(EngineMisconfigured):
        Limits(**{"slots": 2, **changes})
