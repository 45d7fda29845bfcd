"""What the engine shows of the pool: filling and bounds, and requests that wait for an adapter to arrive."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from serving.engine.eraser import Eraser
from serving.engine.metrics import EngineMetrics
from serving.engine.pool.admission import Ticket
from serving.engine.pool.crowd import Crowd
from serving.engine.pool.erasure import Removal
from serving.engine.pool.limits import Limits
from serving.engine.pool.observer import Reason
from serving.engine.pool.pool import AdapterPool
from serving.engine.pool.tier import Entry, Tier
from serving.engine.pool_gauges import show_pool
from serving.engine.steward import Steward
from tests.support.waiting import settle

ADA, BOB = "v" + "a" * 32, "v" + "b" * 32


class Below:
    """A disk with one file; adapters arrive when they may."""

    max_bytes = 500

    def __init__(self) -> None:
        self.may_arrive = asyncio.Event()

    def at_hand(self, version_id: str) -> bool:
        return False

    async def install(self, version_id: str, **_: object) -> int:
        await self.may_arrive.wait()
        return 10

    async def stage(self, version_id: str, **_: object) -> int:
        return 10

    def abandon(self, version_id: str) -> None: ...

    async def drop(self, version_id: str) -> bool:
        return True

    async def erase(self, version_id: str) -> Removal:
        return Removal(named=True, host_bytes=10, slots_zeroed=0, workers=1)

    def usage(self) -> list[Entry]:
        return [Entry(version_id=ADA, size_bytes=30)]

    async def remove(self, version_id: str, *, reason: Reason) -> int:
        return 0


class Bench:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        metrics = EngineMetrics(self.registry)
        self.below, self.crowd = Below(), Crowd()
        self.pool = AdapterPool(
            self.below,
            limits=Limits(slots=2, live_slots=1, seats=4, live_seats=0),
            host=Tier("host memory", max_bytes=40, max_entries=4, max_pinned=1),
            host_entries=3,
            host_live_entries=1,
            arrivals=2,
            observer=metrics,
        )
        eraser = Eraser(self.below, ledger=metrics.ledger)
        show_pool(metrics, self.pool, Steward(self.pool, disk=self.below, eraser=eraser, crowd=self.crowd, slots=2))

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, {key.rstrip("_"): value for key, value in labels.items()})

    def requests(self) -> tuple[float | None, float | None]:
        return self.value("lorry_adapter_requests_loading", class_="live"), self.value("lorry_adapter_loads_under_way")


@pytest.fixture
async def bench() -> Bench:
    return Bench()


async def test_each_tier_shows_its_bound_beside_what_it_holds(bench: Bench) -> None:
    bench.below.may_arrive.set()
    await bench.pool.pin(BOB)
    seen = {
        (name, tier): bench.value(name, tier=tier)
        for name in ("lorry_adapters", "lorry_adapters_max", "lorry_adapter_bytes", "lorry_adapter_bytes_max")
        for tier in ("disk", "host", "slot")
    }
    assert seen == {
        ("lorry_adapters", "disk"): 1,
        ("lorry_adapters", "host"): 1,
        ("lorry_adapters", "slot"): 0,
        ("lorry_adapters_max", "disk"): None,
        ("lorry_adapters_max", "host"): 4,
        ("lorry_adapters_max", "slot"): 2,
        ("lorry_adapter_bytes", "disk"): 30,
        ("lorry_adapter_bytes", "host"): 10,
        ("lorry_adapter_bytes", "slot"): 0,
        ("lorry_adapter_bytes_max", "disk"): 500,
        ("lorry_adapter_bytes_max", "host"): 40,
        ("lorry_adapter_bytes_max", "slot"): None,
    }
    assert bench.value("lorry_adapters_pinned") == 1


async def test_requests_that_wait_for_a_store_that_hangs_are_seen_while_they_do(bench: Bench) -> None:
    assert bench.requests() == (0, 0)
    waiting = [asyncio.create_task(bench.pool.lease(Ticket(version_id=ADA, kind="live"))) for _ in range(3)]
    with bench.crowd.inside():
        await settle()
        assert bench.requests() == (3, 1)
        assert bench.value("lorry_requests_inside") == 1
        assert bench.value("lorry_adapter_leases", class_="live") == 0
    bench.below.may_arrive.set()
    for lease in await asyncio.gather(*waiting):
        lease.release()
    assert bench.requests() == (0, 0)
    assert bench.value("lorry_requests_inside") == 0
