"""The pool against a store that remembers what it holds, with everything happening at once."""

from __future__ import annotations

import asyncio
import random

import pytest

from serving.engine.pool.admission import Ticket
from serving.engine.pool.erasure import Removal
from serving.engine.pool.limits import CLASSES, Limits
from serving.engine.pool.memory import HostMemory
from serving.engine.pool.observer import Observer
from serving.engine.pool.pool import AdapterPool
from serving.engine.pool.pool_lease import PoolLease
from serving.engine.pool.tier import Tier
from serving.engine.urgency import Urgency
from serving.errors import (
    AdapterClosed,
    AdapterDamaged,
    AdapterInUse,
    AdapterNotLoaded,
    AdmissionTimeout,
    EngineBusy,
    EngineDraining,
    TierFull,
    TooManySequences,
)
from tests.support.waiting import settle, until

SLOTS, ENTRIES, ARRIVALS = 3, 6, 2


class Shelf:
    """A store of adapters of one byte each; fails loudly when the pool breaks its word."""

    def __init__(self) -> None:
        self.host: set[str] = set()
        self.erased: list[str] = []
        self.may_return: set[str] = set()
        self.installs: list[str] = []
        self.running: dict[str, int] = {}
        self.on_disk: set[str] = set()
        self.hanging: dict[str, asyncio.Event] = {}
        self.arriving = 0
        self.pause_seconds = 0.0
        self.sizes: dict[str, int] = {}
        self.staged_sizes: dict[str, int] = {}
        self.urgent: dict[str, bool] = {}
        self.stuck: set[str] = set()

    def at_hand(self, version_id: str) -> bool:
        return version_id in self.on_disk

    async def install(self, version_id: str, *, urgent: Urgency) -> int:
        self.installs.append(version_id)
        far = version_id not in self.on_disk
        self.arriving += far
        assert self.arriving <= ARRIVALS
        try:
            await asyncio.sleep(self.pause_seconds)
            if version_id in self.hanging:
                await self.hanging[version_id].wait()
        finally:
            self.arriving -= far
        if version_id.startswith("broken"):
            raise AdapterDamaged("half of it is missing")
        return self.sizes.get(version_id, 1)

    async def stage(self, version_id: str, *, urgent: Urgency) -> int:
        await asyncio.sleep(self.pause_seconds)
        self.urgent[version_id] = bool(urgent)
        if version_id.startswith("odd"):
            raise AdapterDamaged("it cannot be staged")
        assert version_id not in self.erased or version_id in self.may_return, "an erased adapter came back"
        self.host.add(version_id)
        assert len(self.host) <= ENTRIES
        self.sizes[version_id] = self.staged_sizes.get(version_id, self.sizes.get(version_id, 1))
        return self.sizes[version_id]

    def abandon(self, version_id: str) -> None: ...

    def drop(self, version_id: str) -> asyncio.Future[bool]:
        assert not self.running.get(version_id), "an adapter was evicted under a lease"
        if version_id not in self.stuck:
            self.host.remove(version_id)
        return asyncio.ensure_future(asyncio.sleep(self.pause_seconds, version_id not in self.stuck))

    async def erase(self, version_id: str) -> Removal:
        assert not self.running.get(version_id), "an adapter was erased under a lease"
        if version_id in self.stuck:
            raise AdapterNotLoaded("The adapter is used by a running request, so it stays.")
        named = version_id in self.host
        self.host.discard(version_id)
        self.erased.append(version_id)
        return Removal(named=named, host_bytes=int(named), slots_zeroed=0, workers=1)

    def run(self, lease: PoolLease) -> None:
        assert lease.version_id in self.host, "a leased adapter is not in host memory"
        self.running[lease.version_id] = self.running.get(lease.version_id, 0) + 1
        assert sum(count > 0 for count in self.running.values()) <= SLOTS

    def stop(self, lease: PoolLease) -> None:
        self.running[lease.version_id] -= 1


def pool_on(shelf: Shelf, **changes: int) -> AdapterPool:
    host = Tier("host memory", max_bytes=100, max_entries=ENTRIES, max_pinned=1)
    limits = Limits(**{"slots": SLOTS, "live_slots": 1, "seats": 8, "live_seats": 2, **changes})
    return AdapterPool(
        shelf, limits=limits, host=host, host_entries=ENTRIES - 1, host_live_entries=1, arrivals=ARRIVALS
    )


async def test_what_somebody_holds_is_not_evicted_and_can_still_be_named() -> None:
    memory = HostMemory(Shelf(), Tier("host memory", max_bytes=10), observer=Observer(), turn=1)
    memory.tier.make_room("a", 1)
    memory.arrived("a")
    memory.hold("a")
    with pytest.raises(TierFull):
        await memory.evict("a", "asked")
    assert memory.use("a") == "host"


async def test_a_hundred_requests_for_one_cold_adapter_install_it_once() -> None:
    shelf = Shelf()
    pool = pool_on(shelf, seats=100, live_seats=0)
    leases = await asyncio.gather(*(pool.lease(Ticket(version_id="a")) for _ in range(100)))
    assert (shelf.installs, len(leases)) == (["a"], 100)
    for lease in leases:
        lease.release()
        lease.release()
    assert pool.slots.in_flight == frozenset()


@pytest.mark.parametrize("name", ["broken", "odd"])
async def test_an_adapter_that_cannot_be_had_fails_alone_and_may_be_asked_for_again(name: str) -> None:
    shelf = Shelf()
    pool = pool_on(shelf)
    outcomes = await asyncio.gather(
        *(pool.lease(Ticket(version_id=version)) for version in (name, "a", name)), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [AdapterDamaged, PoolLease, AdapterDamaged]
    assert [holding.version_id for holding in pool.holdings()] == ["a"]
    with pytest.raises(AdapterDamaged):
        await pool.lease(Ticket(version_id=name))
    assert shelf.installs.count(name) == 2


async def test_the_least_recently_used_leaves_host_memory_but_nothing_leased_or_pinned() -> None:
    shelf = Shelf()
    pool = pool_on(shelf)
    await pool.pin("pinned")
    leased = await pool.lease(Ticket(version_id="leased"))
    for number in range(20):
        async with pool.leased(Ticket(version_id=f"v{number}")) as lease:
            shelf.run(lease)
            shelf.stop(lease)
    assert {"pinned", "leased", "v19", "v18"} <= shelf.host
    assert len(shelf.host) == ENTRIES
    assert not await pool.evict("leased")
    assert await pool.evict("v19")
    with pytest.raises(TierFull):
        await pool.pin("another")
    leased.release()


@pytest.mark.parametrize("goes_away", [False, True])
async def test_adapters_that_do_not_arrive_keep_nobody_waiting_whose_adapter_is_here(goes_away: bool) -> None:
    shelf = Shelf()
    pool = pool_on(shelf)
    shelf.on_disk.add("near")
    (await pool.lease(Ticket(version_id="here"))).release()
    shelf.hanging = {f"far{number}": asyncio.Event() for number in range(20)}

    async def ask(version_id: str) -> None:
        (await pool.lease(Ticket(version_id=version_id))).release()

    asking = [asyncio.create_task(ask(version_id)) for version_id in shelf.hanging]
    asking += [asyncio.create_task(pool.prefetch(version_id)) for version_id in shelf.hanging]
    for _ in range(3):
        await settle()
        if goes_away:
            for task in asking[:ARRIVALS]:
                task.cancel()
    leases = [
        await asyncio.wait_for(pool.lease(Ticket(version_id=version_id)), 30) for version_id in ("here", "near", "here")
    ]
    assert len(shelf.host) == 2
    for lease in leases:
        lease.release()
    for event in shelf.hanging.values():
        event.set()
    outcomes = await asyncio.gather(*asking, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} <= {type(None), bool, asyncio.CancelledError}
    assert sum(pool.queued(kind) for kind in CLASSES) == 0


async def test_those_who_queue_for_memory_hold_nothing_there_so_whoever_is_admitted_finds_room() -> None:
    shelf = Shelf()
    pool = pool_on(shelf)
    resident = [f"warm{number}" for number in range(ENTRIES)]
    for version_id in resident:
        (await pool.lease(Ticket(version_id=version_id))).release()
    shelf.pause_seconds = 0.005
    cold = [f"cold{number}" for number in range(2 * ENTRIES)]
    shelf.on_disk = set(cold)

    async def ask(version_id: str) -> None:
        async with pool.leased(Ticket(version_id=version_id), deadline_seconds=30) as lease:
            shelf.run(lease)
            await asyncio.sleep(0.001)
            shelf.stop(lease)

    asking = [asyncio.create_task(ask(version_id)) for version_id in cold]
    await settle()  # they have all the places
    asking += [asyncio.create_task(ask(version_id)) for version_id in 3 * resident]
    await asyncio.gather(*asking)


async def test_prefetches_leave_a_place_to_a_live_request() -> None:
    shelf = Shelf()
    pool = pool_on(shelf)
    hints = [f"hint{number}" for number in range(2 * ENTRIES)]
    shelf.hanging = {version_id: asyncio.Event() for version_id in hints}
    shelf.on_disk = {*hints, "ada"}
    hinting = [asyncio.create_task(pool.prefetch(version_id)) for version_id in hints]
    await settle()
    (await asyncio.wait_for(pool.lease(Ticket(version_id="ada"), deadline_seconds=30), 60)).release()
    for event in shelf.hanging.values():
        event.set()
    assert {type(each) for each in await asyncio.gather(*hinting, return_exceptions=True)} <= {bool, TierFull}


async def test_what_lacks_bytes_waits_for_them_unfetched_and_is_not_kept_out_by_small_ones() -> None:
    shelf = Shelf()
    pool = pool_on(shelf, slots=2, turn=2)
    pool.host._max_bytes = 4
    shelf.sizes = {"big": 3, "two": 2, "huge": 5}
    shelf.on_disk = {"a", "b", "two", "big", "huge"}
    with pytest.raises(TierFull):
        await pool.lease(Ticket(version_id="huge"), deadline_seconds=30)
    first, second = [await pool.lease(Ticket(version_id=version_id)) for version_id in ("a", "two")]
    big = asyncio.create_task(pool.lease(Ticket(version_id="big"), deadline_seconds=30))
    late = asyncio.create_task(pool.lease(Ticket(version_id="big"), deadline_seconds=0.02))
    await settle()
    small = asyncio.create_task(pool.lease(Ticket(version_id="b"), deadline_seconds=30))  # it would fit
    await settle()
    assert (shelf.installs.count("big"), "b" in shelf.host, "b" in pool.host) == (1, False, False)
    with pytest.raises(TierFull):
        await pool.prefetch("b2")
    joining = [await pool.lease(Ticket(version_id="a")) for _ in range(2)]
    barred = asyncio.create_task(pool.lease(Ticket(version_id="a"), deadline_seconds=30))
    with pytest.raises(AdmissionTimeout):
        await late
    assert not big.done()
    for lease in (first, second, *joining):
        lease.release()
    leases = await asyncio.wait_for(asyncio.gather(big, barred), 30)
    assert (shelf.installs.count("big"), small.done()) == (2, False)
    for lease in leases:
        lease.release()
    (await small).release()


async def test_what_nobody_wants_any_more_does_not_wait_for_bytes() -> None:
    shelf = Shelf()
    pool = pool_on(shelf)
    pool.host._max_bytes = 2
    shelf.sizes = {"big": 2}
    lease = await pool.lease(Ticket(version_id="a"))
    with pytest.raises(AdmissionTimeout):
        await pool.lease(Ticket(version_id="big"), deadline_seconds=0.02)
    (await asyncio.wait_for(pool.lease(Ticket(version_id="b"), deadline_seconds=30), 60)).release()
    lease.release()
    assert "big" not in pool.host


async def test_so_many_wait_for_a_load_and_the_adapter_that_most_wait_for_loses_the_newest() -> None:
    shelf = Shelf()
    pool = pool_on(shelf, queue=10)
    shelf.hanging = {"far": asyncio.Event(), "near": asyncio.Event()}
    shelf.on_disk = {"near"}
    asking = [asyncio.create_task(pool.lease(Ticket(version_id="far", seats=8))) for _ in range(50)]
    await settle()
    assert [pool.loading(kind) for kind in CLASSES] == [10, 0]
    assert sum(task.done() for task in asking) == 40
    near = asyncio.create_task(pool.lease(Ticket(version_id="near")))
    await settle()
    assert (near.done(), pool.loading("live"), sum(task.done() for task in asking)) == (False, 10, 41)
    shelf.hanging["near"].set()
    (await near).release()
    for task in asking:
        task.cancel()
    outcomes = await asyncio.gather(*asking, return_exceptions=True)
    busy = [each for each in outcomes if isinstance(each, EngineBusy)]
    assert len(busy) == 41
    assert all(each.details["retry_after_seconds"] >= 1 for each in busy)
    shelf.hanging["far"].set()
    await settle()
    assert pool.loading("live") == 0


async def test_a_live_request_makes_urgent_what_is_on_its_way_already() -> None:
    shelf = Shelf()
    pool = pool_on(shelf)
    shelf.hanging = {"hint": asyncio.Event(), "other": asyncio.Event()}
    hinting = [asyncio.create_task(pool.prefetch(version_id)) for version_id in shelf.hanging]
    await settle()
    asking = asyncio.create_task(pool.lease(Ticket(version_id="hint")))
    await settle()
    for event in shelf.hanging.values():
        event.set()
    (await asking).release()
    await asyncio.gather(*hinting)
    assert shelf.urgent == {"hint": True, "other": False}


async def test_the_base_needs_seats_and_waits_for_them_in_the_same_queue() -> None:
    shelf = Shelf()
    pool = pool_on(shelf, queue=1)
    release = await pool.enter(Ticket(version_id=None, seats=8))
    waiting = asyncio.create_task(pool.enter(Ticket(version_id=None)))
    await asyncio.sleep(0)
    assert (pool.queued("live"), pool.slots.in_flight) == (1, frozenset())
    with pytest.raises(EngineBusy):
        await pool.enter(Ticket(version_id=None))
    with pytest.raises(TooManySequences):
        await pool.enter(Ticket(version_id=None, seats=9))
    with pytest.raises(TooManySequences):
        await pool.enter(Ticket(version_id="a", kind="batch", seats=7))
    release()
    (await waiting)()
    release()
    assert pool.slots.seats_taken("live") == 0
    pool.stop(EngineDraining())
    with pytest.raises(EngineDraining):
        await pool.enter(Ticket(version_id=None))


async def test_an_erasure_waits_for_no_load() -> None:
    shelf = Shelf()
    pool = pool_on(shelf)
    shelf.hanging = {"a": asyncio.Event()}
    shelf.may_return = {"a"}
    asking = [asyncio.create_task(pool.lease(Ticket(version_id="a"))) for _ in range(3)]
    await settle()
    erasure = await asyncio.wait_for(pool.withdraw("a", AdapterClosed(), wait_seconds=30), 60)
    assert (erasure.leases, erasure.refused) == (0, 3)
    assert {type(each) for each in await asyncio.gather(*asking, return_exceptions=True)} == {AdapterClosed}
    shelf.hanging.clear()
    (await pool.lease(Ticket(version_id="a"))).release()
    assert shelf.host == {"a"}


async def test_prefetching_takes_no_slot() -> None:
    shelf = Shelf()
    pool = pool_on(shelf)
    assert [await pool.prefetch(name) for name in ("a", "b", "c", "d", "a")] == [False] * 4 + [True]
    assert pool.slots.in_flight == frozenset()
    async with pool.leased(Ticket(version_id="a")) as lease:
        assert lease.was_resident


async def test_erasing_waits_for_leases_and_refuses_who_comes_later() -> None:
    shelf = Shelf()
    pool = pool_on(shelf, slots=1, live_slots=0)
    lease = await pool.lease(Ticket(version_id="a"))
    waiting = asyncio.create_task(pool.lease(Ticket(version_id="a", seats=8)))
    await asyncio.sleep(0)
    erasing = asyncio.create_task(pool.withdraw("a", AdapterClosed()))
    await settle()
    assert not erasing.done()
    with pytest.raises(AdapterClosed):
        await waiting
    with pytest.raises(AdapterClosed):
        await pool.lease(Ticket(version_id="a"))
    with pytest.raises(AdapterClosed):
        await pool.prefetch("a")
    lease.release()
    await asyncio.wait_for(erasing, 30)
    assert (shelf.erased, pool.holdings()) == (["a"], [])


async def test_erasing_at_once_asks_holders_to_stop() -> None:
    shelf = Shelf()
    pool = pool_on(shelf)
    reasons: list[Exception] = []
    lease = await pool.lease(Ticket(version_id="a"), abort=lambda reason: (reasons.append(reason), lease.release())[0])
    await asyncio.wait_for(pool.withdraw("a", AdapterClosed(), at_once=True), 30)
    assert [type(reason) for reason in reasons] == [AdapterClosed]


async def test_an_erasure_that_nobody_waits_for_any_more_opens_again_what_it_closed() -> None:
    shelf = Shelf()
    pool = pool_on(shelf)
    lease = await pool.lease(Ticket(version_id="a"))
    withdrawing = asyncio.create_task(pool.withdraw("a", AdapterClosed()))
    await settle()
    withdrawing.cancel()
    await asyncio.gather(withdrawing, return_exceptions=True)
    lease.release()
    await settle()
    shelf.erased.remove("a")
    (await pool.lease(Ticket(version_id="a"))).release()


async def test_who_joins_a_withdrawal_waits_no_longer_than_it_said() -> None:
    shelf = Shelf()
    pool = pool_on(shelf)
    lease = await pool.lease(Ticket(version_id="a"))
    patient = asyncio.create_task(pool.withdraw("a", AdapterClosed()))
    await settle()
    with pytest.raises(AdapterInUse, match="1 requests still run on the adapter after"):
        await asyncio.wait_for(pool.withdraw("a", AdapterClosed(), wait_seconds=0.02), 30)
    with pytest.raises(AdapterClosed):  # the patient one still keeps it shut
        await pool.lease(Ticket(version_id="a"))
    joining = asyncio.create_task(pool.withdraw("a", AdapterClosed(), wait_seconds=30))
    await settle()
    lease.release()
    assert await patient == await joining
    assert shelf.erased == ["a"]


async def test_a_joined_erasure_erases_once() -> None:
    shelf = Shelf()
    pool = pool_on(shelf)
    await pool.prefetch("a")
    first, second = await asyncio.gather(*(pool.withdraw("a", AdapterClosed()) for _ in range(2)))
    assert (first, shelf.erased) == (second, ["a"])


async def test_an_erasure_ordered_as_another_ends_does_not_close_the_version_for_good() -> None:
    class Slow(Shelf):
        async def erase(self, version_id: str) -> Removal:
            await done
            return await super().erase(version_id)

    done, shelf = asyncio.get_running_loop().create_future(), Slow()
    shelf.may_return = {"a"}
    pool = pool_on(shelf)

    async def order_again() -> None:
        await done  # woken behind the erasure, by the same event of the loop
        await pool.withdraw("a", AdapterClosed())

    first = asyncio.create_task(pool.withdraw("a", AdapterClosed()))
    await settle()
    second = asyncio.create_task(order_again())
    await settle()
    done.set_result(None)
    await asyncio.gather(first, second)
    (await pool.lease(Ticket(version_id="a"))).release()


async def test_an_adapter_erased_while_it_is_loaded_is_never_leased() -> None:
    shelf = Shelf()
    shelf.hanging = {"a": asyncio.Event()}
    pool = pool_on(shelf)
    asking = asyncio.create_task(pool.lease(Ticket(version_id="a")))
    await settle()
    erasing = asyncio.create_task(pool.withdraw("a", AdapterClosed()))
    asyncio.get_running_loop().call_soon(shelf.hanging["a"].set)
    with pytest.raises(AdapterClosed):
        await asking
    await erasing
    assert shelf.host == set()


async def test_who_goes_away_while_it_loads_leaves_nothing_but_the_adapter() -> None:
    shelf = Shelf()
    shelf.hanging = {"a": asyncio.Event()}
    pool = pool_on(shelf)
    asking = asyncio.create_task(pool.lease(Ticket(version_id="a")))
    await settle()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    shelf.hanging["a"].set()
    await until(lambda: [(holding.version_id, holding.leases) for holding in pool.holdings()] == [("a", 0)])


async def test_the_deadline_covers_both_waits() -> None:
    shelf = Shelf()
    pool = pool_on(shelf, slots=1, live_slots=0)
    lease = await pool.lease(Ticket(version_id="a"))
    with pytest.raises(AdmissionTimeout):
        await pool.lease(Ticket(version_id="b"), deadline_seconds=0.5)
    lease.release()
    assert (await pool.lease(Ticket(version_id="b"), deadline_seconds=30)).was_resident


@pytest.mark.parametrize("seed", range(10))
async def test_anything_at_once_keeps_every_promise(seed: int) -> None:
    chance, shelf = random.Random(seed), Shelf()
    shelf.pause_seconds = 0.0005
    pool = pool_on(shelf)
    names = [f"v{number}" for number in range(12)] + ["broken", "odd"]
    shelf.may_return = set(names[:6])

    async def use() -> None:
        ticket = Ticket(
            version_id=chance.choice(names), kind=chance.choice(CLASSES), tenant=chance.choice("xyz"),
            seats=chance.randint(1, 3),
        )  # fmt: skip
        lease = await pool.lease(ticket, deadline_seconds=chance.choice([None, None, 0.01]))
        shelf.run(lease)
        try:
            await asyncio.sleep(chance.random() * 0.002)
        finally:
            shelf.stop(lease)
            lease.release()

    async def meddle() -> None:
        await asyncio.sleep(chance.random() * 0.1)
        name = chance.choice(names[3:12])
        match chance.choice((0, 0, 1, 1, 2, 2, 3, 3, 5, 5)):
            case 0:
                await pool.prefetch(name, urgent=chance.random() < 0.5)
            case 1:
                await pool.evict(name)
            case 2:
                await pool.retire(name)
            case 3:
                await pool.pin(name)
                await asyncio.sleep(0.005)
                pool.unpin(name)
            case _:
                pool.activated(name, chance.randrange(SLOTS))

    async def stop() -> None:
        await until(lambda: sum(task.done() for task in tasks) > len(tasks) * 3 // 4)
        pool.stop(EngineDraining())
        await asyncio.sleep(0.001)
        pool.start()

    async def withdraw() -> None:
        await asyncio.sleep(chance.random() * 0.1)
        name = chance.choice(names[:6])
        await pool.withdraw(name, AdapterClosed(), wait_seconds=chance.choice([None, 0.001]))

    work = [use() for _ in range(300)] + [meddle() for _ in range(40)]
    work += [withdraw() for _ in range(8)] + [stop()]
    chance.shuffle(work)
    tasks = [asyncio.create_task(item) for item in work]
    for _ in range(40):
        await asyncio.sleep(0.001)
        chance.choice(tasks).cancel()
    outcomes = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 30)

    expected = (
        AdapterClosed, AdapterDamaged, AdapterInUse, AdmissionTimeout, EngineBusy, EngineDraining, TierFull,
        asyncio.CancelledError,
    )  # fmt: skip
    assert [
        outcome for outcome in outcomes if isinstance(outcome, BaseException) and not isinstance(outcome, expected)
    ] == []
    assert sum(outcome is None for outcome in outcomes) > 25
    assert all(pool.leases(kind) == 0 for kind in CLASSES)
    assert set(pool.in_slots.slots()) <= {holding.version_id for holding in pool.holdings()}
    await until(lambda: shelf.host == {holding.version_id for holding in pool.holdings()})
    assert all(holding.leases == 0 and not holding.in_flight for holding in pool.holdings())
    assert [pool.slots.queued(kind) + pool.slots.seats_taken(kind) for kind in CLASSES] == [0, 0]


async def test_what_may_displace_nothing_takes_only_what_is_free_unless_a_request_wants_it_too() -> None:
    shelf = Shelf()
    pool = pool_on(shelf)
    for name in "abcdef":
        assert not await pool.prefetch(name, displace=False)
    with pytest.raises(TierFull):
        await pool.prefetch("g", displace=False)
    assert shelf.host == set("abcdef")

    shelf.hanging = {"g": asyncio.Event()}
    modest = asyncio.create_task(pool.prefetch("g", displace=False))
    await settle()
    asking = asyncio.create_task(pool.lease(Ticket(version_id="g")))
    await settle()
    shelf.hanging["g"].set()
    (await asking).release()
    assert (await modest, shelf.host) == (False, set("bcdefg"))
    assert not await pool.prefetch("a")
    assert shelf.host == set("cdefga")


async def test_an_adapter_counts_with_what_it_takes_in_memory_once_that_is_known() -> None:
    shelf = Shelf()
    shelf.sizes = {"wide": 40}
    shelf.staged_sizes = {"wide": 80, "a": 1}
    pool = pool_on(shelf)
    shelf.sizes["b"] = 50
    for name in ("a", "b"):
        await pool.prefetch(name)
    await pool.prefetch("wide")  # 40 were expected, for which there was room
    assert [(holding.version_id, holding.size_bytes) for holding in pool.holdings()] == [("wide", 80)]
    assert (shelf.host, pool.host.size_bytes) == ({"wide"}, 80)


async def test_an_adapter_that_takes_more_than_there_is_room_for_is_taken_out_again() -> None:
    shelf = Shelf()
    shelf.sizes, shelf.staged_sizes = {"b": 50, "wide": 40, "huge": 40}, {"wide": 80, "huge": 101}
    pool = pool_on(shelf)
    async with pool.leased(Ticket(version_id="b")):
        with pytest.raises(TierFull):
            await pool.prefetch("wide")
        assert (shelf.host, pool.host.size_bytes) == ({"b"}, 50)
    with pytest.raises(TierFull):
        await pool.lease(Ticket(version_id="huge"), deadline_seconds=30)
    assert (shelf.host, pool.host.size_bytes) == ({"b"}, 50)


async def test_a_request_whose_adapter_takes_more_than_was_guessed_waits_for_that() -> None:
    shelf = Shelf()
    shelf.sizes, shelf.staged_sizes = {"b": 50, "wide": 40}, {"wide": 80}
    pool = pool_on(shelf)
    lease = await pool.lease(Ticket(version_id="b"))
    asking = asyncio.create_task(pool.lease(Ticket(version_id="wide"), deadline_seconds=30))
    await settle()
    assert (asking.done(), shelf.host, pool.host.size_bytes) == (False, {"b"}, 50)
    with pytest.raises(AdmissionTimeout):
        await pool.lease(Ticket(version_id="wide"), deadline_seconds=0.01)
    lease.release()
    (await asking).release()
    assert (shelf.host, pool.host.size_bytes) == ({"wide"}, 80)


async def test_who_queues_for_an_arrival_passes_once_the_adapter_is_there_or_cannot_be_had() -> None:
    shelf = Shelf()
    pool = pool_on(shelf)
    shelf.hanging = {"far": asyncio.Event(), "a": asyncio.Event(), "broken": asyncio.Event()}
    far = asyncio.create_task(pool.lease(Ticket(version_id="far", kind="batch")))  # has all that batch may have
    await settle()
    for version_id in ("a", "broken"):
        queueing = asyncio.create_task(pool.lease(Ticket(version_id=version_id, kind="batch"), deadline_seconds=30))
        asking = asyncio.create_task(pool.lease(Ticket(version_id=version_id)))
        await settle()
        assert (pool.queued("batch"), pool.loading("batch")) == (1, 1)
        shelf.on_disk.add(version_id)  # from now on it needs nobody else
        shelf.hanging[version_id].set()
        outcomes = await asyncio.wait_for(asyncio.gather(queueing, asking, return_exceptions=True), 30)
        assert not far.done()
        for outcome in outcomes:
            if isinstance(outcome, PoolLease):
                assert outcome.version_id == "a"
                outcome.release()
            else:
                assert (version_id, type(outcome)) == ("broken", AdapterDamaged)
    shelf.hanging["far"].set()
    (await far).release()
    assert all(pool.queued(kind) == 0 for kind in CLASSES)


async def test_a_stopped_pool_refuses_at_once_those_as_well_whose_adapter_is_on_its_way() -> None:
    shelf = Shelf()
    pool = pool_on(shelf)
    shelf.hanging = {"far": asyncio.Event()}
    asking = [asyncio.create_task(pool.lease(Ticket(version_id="far"))) for _ in range(3)]
    await settle()
    reason = EngineDraining()
    assert pool.stop(reason) == 3
    outcomes = await asyncio.wait_for(asyncio.gather(*asking, return_exceptions=True), 30)
    assert {type(outcome) for outcome in outcomes} == {EngineDraining}
    with pytest.raises(EngineDraining):
        await pool.prefetch("far")
    assert reason.__traceback__ is None, "it would hold on to what those asked who were refused"
    assert pool.loading("live") == 0
    pool.start()
    shelf.hanging["far"].set()
    (await pool.lease(Ticket(version_id="far"))).release()
    assert shelf.installs == ["far"]
