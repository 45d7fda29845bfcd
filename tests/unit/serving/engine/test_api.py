"""The routes under /lorry/ over a real pool, with stand-ins for what lies below it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry

from kit.errors import LorryError
from registry.errors import RegistryUnavailable
from serving.engine.api import Api
from serving.engine.eraser import Eraser
from serving.engine.metrics import EngineMetrics
from serving.engine.pool.admission import Ticket
from serving.engine.pool.crowd import Crowd
from serving.engine.pool.erasure import Erasure, Removal
from serving.engine.pool.limits import Limits
from serving.engine.pool.observer import Reason
from serving.engine.pool.pool import AdapterPool
from serving.engine.pool.tier import Entry, Tier
from serving.engine.pool_gauges import show_pool
from serving.engine.steward import Steward
from serving.engine.urgency import Urgency
from serving.errors import EngineDraining
from tests.support.waiting import settle

ADA, BOB, CLEO, DAN, EVE = (f"v{number:032x}" for number in range(1, 6))
BROKEN = "v" + "f" * 32
SIZE = 10


class Below:
    """Disk and workers: what is installed stays on the disk; every adapter has ten bytes."""

    max_bytes = 1000

    def __init__(self, metrics: EngineMetrics) -> None:
        self.metrics = metrics
        self.files: dict[str, int] = {}
        self.host: set[str] = set()
        self.urgent: list[tuple[str, bool]] = []
        self.may_stage = asyncio.Event()
        self.may_stage.set()

    def at_hand(self, version_id: str) -> bool:
        return False

    async def install(self, version_id: str, *, urgent: Urgency) -> int:
        with self.metrics.stage("resolve"):
            await asyncio.sleep(0)
            if version_id == BROKEN:
                error = RegistryUnavailable()
                self.metrics.failed(error)
                raise error
        with self.metrics.stage("open" if version_id in self.files else "download"):
            self.files[version_id] = SIZE
        return SIZE

    async def stage(self, version_id: str, *, urgent: Urgency) -> int:
        with self.metrics.stage("engine_load"):
            await self.may_stage.wait()
        self.urgent.append((version_id, bool(urgent)))
        self.host.add(version_id)
        return SIZE

    def abandon(self, version_id: str) -> None: ...

    async def drop(self, version_id: str) -> bool:
        self.host.discard(version_id)
        return True

    async def erase(self, version_id: str) -> Removal:
        named = version_id in self.host
        self.host.discard(version_id)
        return Removal(named=named, host_bytes=SIZE * named, slots_zeroed=int(named), workers=1)

    def usage(self) -> list[Entry]:
        return [Entry(version_id=name, size_bytes=size) for name, size in self.files.items()]

    async def remove(self, version_id: str, *, reason: Reason) -> int:
        freed = self.files.pop(version_id, 0)
        if freed:
            self.metrics.evicted("disk", reason)
        return freed


class Memory:
    """The pool, with holders of leases that stop when they are told."""

    def __init__(self, pool: AdapterPool) -> None:
        self.pool = pool

    async def withdraw(
        self,
        version_id: str,
        reason: LorryError,
        *,
        abort: bool = True,
        wait_seconds: float | None = None,
        because: Reason = "withheld",
    ) -> Erasure:
        return await self.pool.withdraw(version_id, reason, at_once=abort, wait_seconds=wait_seconds, because=because)


class Bench:
    def __init__(self) -> None:
        self.measures = CollectorRegistry()
        self.metrics = EngineMetrics(self.measures)
        self.below = Below(self.metrics)
        host = Tier("host memory", max_bytes=4 * SIZE, max_entries=4, max_pinned=1)
        limits = Limits(slots=2, live_slots=0, seats=8, live_seats=0)
        self.pool = AdapterPool(
            self.below, limits=limits, host=host, host_entries=3, host_live_entries=0, arrivals=2, observer=self.metrics
        )
        eraser = Eraser(self.below, ledger=self.metrics.ledger)
        eraser.connect(Memory(self.pool))
        self.crowd = Crowd()
        self.steward = Steward(self.pool, disk=self.below, eraser=eraser, crowd=self.crowd, slots=2)
        show_pool(self.metrics, self.pool, self.steward)
        self.api = Api(ready=self.ready, steward=self.steward, ledger=self.metrics.ledger)
        app = FastAPI()
        app.include_router(self.api.router())
        transport = httpx.ASGITransport(app=app)
        self.http = httpx.AsyncClient(base_url="http://engine", transport=transport)

    async def ready(self) -> JSONResponse:
        return JSONResponse({"status": "ready"})

    async def post(self, path: str, body: Any = None) -> tuple[int, Any]:
        response = (
            await self.http.post(f"/lorry/{path}", json=body)
            if body is not None
            else await self.http.post(f"/lorry/{path}")
        )
        return response.status_code, response.json()

    async def get(self, path: str, **query: str) -> tuple[int, Any]:
        response = await self.http.get(f"/lorry/{path}", params=query)
        return response.status_code, response.json()

    def value(self, name: str, **labels: str) -> float | None:
        return self.measures.get_sample_value(name, {key.removesuffix("_"): value for key, value in labels.items()})


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.steward.close()
    await bench.http.aclose()


async def test_prefetch_brings_an_adapter_without_a_slot(bench: Bench) -> None:
    assert await bench.post(f"adapters/{ADA}/prefetch", {"wait": True}) == (
        200, {"version_id": ADA, "state": "loaded"},
    )  # fmt: skip
    assert await bench.post(f"adapters/{ADA}/prefetch", {"class": "live"}) == (
        200, {"version_id": ADA, "state": "resident"},
    )  # fmt: skip
    status, shown = await bench.get(f"adapters/{ADA}")
    assert (status, shown) == (
        200,
        {"version_id": ADA, "disk_bytes": 10, "host_bytes": 10, "slot": None, "leases": 0, "pinned": False},
    )


async def test_a_hint_for_what_is_here_keeps_it_here_until_it_is_asked_for(bench: Bench) -> None:
    for version_id in (ADA, BOB, CLEO, DAN):
        await bench.post(f"adapters/{version_id}/prefetch", {"wait": True})
    assert (await bench.post(f"adapters/{ADA}/prefetch"))[1]["state"] == "resident"
    await bench.post(f"adapters/{EVE}/prefetch", {"wait": True})
    assert bench.below.host == {ADA, CLEO, DAN, EVE}


async def test_prefetch_in_the_background_answers_at_once_and_is_bounded(bench: Bench) -> None:
    bench.below.may_stage.clear()
    assert (await bench.post(f"adapters/{ADA}/prefetch"))[0] == 202
    for number in range(100, 131):
        assert (await bench.post(f"adapters/v{number:032x}/prefetch"))[0] == 202
    assert (await bench.post(f"adapters/{ADA}/prefetch"))[0] == 202  # is under way already
    response = await bench.http.post(f"/lorry/adapters/{BOB}/prefetch")
    assert (response.status_code, response.headers["retry-after"]) == (429, "1")
    bench.below.may_stage.set()


async def test_a_live_request_that_joins_a_prefetch_makes_it_urgent(bench: Bench) -> None:
    assert (await bench.post(f"adapters/{ADA}/prefetch", {"class": "live", "wait": True}))[0] == 200
    assert (await bench.post(f"adapters/{BOB}/prefetch", {"wait": True}))[0] == 200
    assert bench.below.urgent == [(ADA, True), (BOB, False)]


async def test_a_prefetch_that_is_waited_for_says_why_it_failed(bench: Bench) -> None:
    status, problem = await bench.post(f"adapters/{BROKEN}/prefetch", {"wait": True})
    assert (status, problem["type"]) == (503, "urn:lorry:problem:registry-unavailable")
    _, troubles = await bench.get("troubles")
    assert [(each["version_id"], each["reason"]) for each in troubles["failing"]] == [(BROKEN, "registry_unavailable")]


async def test_pins_stay_are_bounded_and_go(bench: Bench) -> None:
    assert (await bench.post(f"adapters/{ADA}/pin"))[0] == 200
    status, problem = await bench.post(f"adapters/{BOB}/pin")
    assert (status, problem["type"]) == (409, "urn:lorry:problem:pins-full")
    for version_id in (BOB, CLEO, DAN, EVE):
        await bench.post(f"adapters/{version_id}/prefetch", {"wait": True})
    assert ADA in bench.below.host
    status, problem = await bench.post(f"adapters/{ADA}/evict")
    assert (status, problem["type"], problem["title"]) == (
        409, "urn:lorry:problem:adapter-pinned", "The adapter is pinned, so it stays: unpin it first.",
    )  # fmt: skip
    await bench.post("drain", {"wait_seconds": 0})
    assert (await bench.post(f"adapters/{ADA}/pin"))[0] == 503
    await bench.post("resume")
    assert (await bench.get(f"adapters/{ADA}"))[1]["pinned"] is True
    assert await bench.pool.retire(ADA) is False
    assert (await bench.post(f"adapters/{ADA}/unpin"))[1]["was_pinned"] is True
    assert (await bench.post(f"adapters/{ADA}/unpin"))[1]["was_pinned"] is False


async def test_evicting_frees_one_tier_and_never_what_is_used(bench: Bench) -> None:
    lease = await bench.pool.lease(Ticket(version_id=ADA))
    status, problem = await bench.post(f"adapters/{ADA}/evict")
    assert (status, problem["leases"]) == (409, 1)
    lease.release()
    assert (await bench.post(f"adapters/{ADA}/evict"))[1]["freed_bytes"] == SIZE
    assert (await bench.post(f"adapters/{ADA}/evict"))[0] == 404
    assert (await bench.post(f"adapters/{ADA}/evict", {"tier": "disk"}))[1]["freed_bytes"] == SIZE
    assert (await bench.post(f"adapters/{ADA}/evict", {"tier": "disk"}))[0] == 404
    assert (await bench.get(f"adapters/{ADA}"))[0] == 404


async def test_erasing_waits_for_leases_and_gives_up_with_nothing_changed(bench: Bench) -> None:
    lease = await bench.pool.lease(Ticket(version_id=ADA))
    status, problem = await bench.post(f"adapters/{ADA}/erase", {"wait_seconds": 0.05})
    assert (status, problem["leases"]) == (409, 1)
    assert (ADA in bench.below.host, ADA in bench.below.files) == (True, True)
    second = await bench.pool.lease(Ticket(version_id=ADA))  # leases are given again
    lease.release()
    second.release()
    status, receipt = await bench.post(f"adapters/{ADA}/erase")
    assert status == 200
    assert (receipt["version_id"], receipt["because"], receipt["disk_bytes"]) == (ADA, "erased", SIZE)
    assert receipt["ordered_by"] == "operator"
    assert receipt["memory"]["removal"] == {
        "named": True, "host_bytes": SIZE, "slots_zeroed": 1, "workers": 1, "cached_blocks": "unreachable",
    }  # fmt: skip
    assert (await bench.get("erasures"))[1]["erasures"] == [receipt]
    assert (await bench.get(f"adapters/{ADA}"))[0] == 404


async def test_erasing_aborts_who_runs_when_that_is_asked_for(bench: Bench) -> None:
    told: list[LorryError] = []
    lease = await bench.pool.lease(
        Ticket(version_id=ADA), abort=lambda reason: (told.append(reason), lease.release())[0]
    )
    status, receipt = await bench.post(f"adapters/{ADA}/erase", {"leases": "abort", "wait_seconds": 5})
    assert (status, receipt["memory"]["leases"], len(told)) == (200, 1, 1)


async def test_erasing_what_is_nowhere_says_so_and_harms_nothing(bench: Bench) -> None:
    status, receipt = await bench.post(f"adapters/{ADA}/erase")
    assert (status, receipt["disk_bytes"], receipt["memory"]["removal"]["named"]) == (200, 0, False)


async def test_what_a_version_left_in_a_slot_is_shown_until_it_is_erased(bench: Bench) -> None:
    (await bench.pool.lease(Ticket(version_id=ADA))).release()
    bench.pool.activated(ADA, 1)
    for tier in ("host", "disk"):
        assert (await bench.post(f"adapters/{ADA}/evict", {"tier": tier}))[0] == 200
    assert bench.pool.held() == {ADA}
    status, shown = await bench.get(f"adapters/{ADA}")
    assert (status, shown["slot"], shown["host_bytes"], shown["disk_bytes"]) == (200, 1, None, None)

    assert (await bench.post(f"adapters/{ADA}/erase"))[0] == 200
    assert ((await bench.get(f"adapters/{ADA}"))[0], bench.pool.held()) == (404, frozenset())


async def test_a_drain_refuses_who_waits_and_comes_and_waits_for_who_runs(bench: Bench) -> None:
    running = [await bench.pool.lease(Ticket(version_id=ADA, seats=8))]
    waiting = asyncio.create_task(bench.pool.lease(Ticket(version_id=ADA)))
    await settle()
    with bench.crowd.inside():
        status, report = await bench.post("drain", {"wait_seconds": 0.05})
        assert (status, report["drained"], report["inside"], report["refused"]) == (200, False, 1, 1)
        with pytest.raises(EngineDraining):
            await waiting
        with pytest.raises(EngineDraining):
            await bench.pool.lease(Ticket(version_id=BOB))
        draining = asyncio.create_task(bench.post("drain", {"wait_seconds": 60}))
        await settle()
        assert not draining.done()
    assert (await draining)[1]["drained"] is True
    assert (await bench.get("residency"))[1]["draining"] is True
    assert (await bench.post(f"adapters/{BOB}/prefetch", {"wait": True}))[0] == 503
    for lease in running:
        lease.release()
    assert await bench.post("resume") == (200, {"draining": False})
    (await bench.pool.lease(Ticket(version_id=BOB))).release()


async def test_a_load_under_way_when_a_drain_begins_is_not_admitted(bench: Bench) -> None:
    bench.below.may_stage.clear()
    asking = asyncio.create_task(bench.pool.lease(Ticket(version_id=ADA)))
    await settle()
    await bench.post("drain", {"wait_seconds": 0})
    bench.below.may_stage.set()
    with pytest.raises(EngineDraining):
        await asking
    assert bench.pool.leases("live") == 0


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("adapters/nonsense/prefetch", {}, "version_id"),
        (f"adapters/{ADA.upper()}/pin", {}, "version_id"),
        (f"adapters/{ADA}/prefetch", {"class": "urgent"}, "class"),
        (f"adapters/{ADA}/prefetch", {"wait": "yes"}, "wait"),
        (f"adapters/{ADA}/pin", {"forever": True}, "forever"),
        (f"adapters/{ADA}/evict", {"tier": "slot"}, "tier"),
        (f"adapters/{ADA}/erase", {"leases": "kill"}, "leases"),
        (f"adapters/{ADA}/erase", {"wait_seconds": -1}, "wait_seconds"),
        (f"adapters/{ADA}/erase", {"wait_seconds": 601}, "wait_seconds"),
        ("drain", {"wait_seconds": "long"}, "wait_seconds"),
        ("drain", [], "body"),
    ],
)
async def test_bad_input_is_refused_naming_the_field(bench: Bench, path: str, body: Any, field: str) -> None:
    status, problem = await bench.post(path, body)
    assert (status, problem["type"], problem["field"]) == (422, "urn:lorry:problem:order-invalid", field)
    assert field in problem["detail"] or field == "version_id"


@pytest.mark.parametrize(
    ("body", "field"), [(b"{", "body"), (b"\xff", "body"), (b'{"wait_seconds": NaN}', "wait_seconds")]
)
async def test_a_body_that_is_no_json_is_refused(bench: Bench, body: bytes, field: str) -> None:
    response = await bench.http.post("/lorry/drain", content=body)
    assert (response.status_code, response.json()["field"]) == (422, field)
    assert not bench.steward.draining


async def test_a_body_that_is_too_large_is_refused(bench: Bench) -> None:
    response = await bench.http.post("/lorry/drain", content=b" " * (65 << 10))
    assert response.status_code == 413


@pytest.mark.parametrize(
    ("query", "field"), [({"tier": "ram"}, "tier"), ({"limit": "0"}, "limit"), ({"limit": "x"}, "limit")]
)
async def test_a_bad_query_is_refused_naming_the_parameter(bench: Bench, query: dict[str, str], field: str) -> None:
    status, problem = await bench.get("adapters", **query)
    assert (status, problem["field"]) == (422, field)


async def test_the_disk_is_listed_in_pages(bench: Bench) -> None:
    for version_id in (CLEO, ADA, BOB):
        await bench.post(f"adapters/{version_id}/prefetch", {"wait": True})
    _, page = await bench.get("adapters", tier="disk", limit="2")
    assert ([each["version_id"] for each in page["adapters"]], page["next"]) == ([ADA, BOB], BOB)
    _, page = await bench.get("adapters", tier="disk", limit="2", after=BOB)
    assert ([each["version_id"] for each in page["adapters"]], page["next"]) == ([CLEO], None)
    assert [each["version_id"] for each in (await bench.get("adapters"))[1]["adapters"]] == [CLEO, ADA, BOB]


async def test_before_the_engine_runs_every_order_is_refused(bench: Bench) -> None:
    bench.api.steward = None
    assert (await bench.get("residency"))[0] == 503
    assert (await bench.post(f"adapters/{ADA}/erase"))[0] == 503


async def test_after_a_scripted_sequence_every_counter_equals_what_happened(bench: Bench) -> None:
    (await bench.pool.lease(Ticket(version_id=ADA))).release()  # from the registry
    bench.pool.activated(ADA, 0)
    (await bench.pool.lease(Ticket(version_id=ADA))).release()  # in its slot
    await bench.pool.prefetch(BOB)
    (await bench.pool.lease(Ticket(version_id=BOB, kind="batch"))).release()  # in host memory
    bench.pool.activated(BOB, 0)  # takes ADA's slot
    await bench.pool.evict(ADA)
    held = await bench.pool.lease(Ticket(version_id=ADA))  # from the disk
    bench.pool.activated(ADA, 1)
    with pytest.raises(RegistryUnavailable):
        await bench.pool.lease(Ticket(version_id=BROKEN))
    for version_id in (CLEO, DAN, EVE):
        await bench.pool.prefetch(version_id)  # the fifth in a tier of four: BOB leaves, with its slot
    await bench.post(f"adapters/{CLEO}/erase")
    await bench.pool.retire(DAN)
    held_too = await bench.pool.lease(Ticket(version_id=EVE, kind="batch"))
    waiting = asyncio.create_task(bench.pool.lease(Ticket(version_id="v" + "9" * 32)))
    await settle()

    hits = {
        (tier, kind): bench.value("lorry_adapter_requests_total", tier=tier, class_=kind)
        for tier in ("slot", "host", "disk", "registry")
        for kind in ("live", "batch")
    }
    assert {key: count for key, count in hits.items() if count} == {
        ("registry", "live"): 1, ("slot", "live"): 1, ("host", "batch"): 2, ("disk", "live"): 1,
    }  # fmt: skip
    evictions = {
        (sample.labels["tier"], sample.labels["reason"]): sample.value
        for metric in bench.measures.collect()
        if metric.name == "lorry_adapter_evictions"
        for sample in metric.samples
        if sample.name.endswith("_total") and sample.value
    }
    assert evictions == {
        ("slot", "room"): 2, ("host", "asked"): 1, ("host", "room"): 1, ("host", "erased"): 1, ("disk", "erased"): 1,
        ("host", "superseded"): 1,
    }  # fmt: skip
    assert bench.value("lorry_adapter_loads_total", outcome="loaded") == 7  # the last waits for a slot, loaded
    assert bench.value("lorry_adapter_loads_total", outcome="failed") == 1
    assert bench.value("lorry_adapter_load_failures_total", reason="registry_unavailable") == 1
    assert bench.value("lorry_adapter_load_seconds_count", stage="engine_load", source="registry") == 6
    assert bench.value("lorry_adapter_load_seconds_count", stage="engine_load", source="disk") == 1
    assert bench.value("lorry_adapter_load_seconds_count", stage="open", source="disk") == 1
    assert [bench.value("lorry_adapter_leases", class_=kind) for kind in ("live", "batch")] == [1, 1]
    assert [bench.value("lorry_queue_depth", class_=kind) for kind in ("live", "batch")] == [1, 0]
    assert [bench.value("lorry_adapters", tier=tier) for tier in ("disk", "host", "slot")] == [5, 3, 1]
    assert [bench.value("lorry_adapter_bytes", tier=tier) for tier in ("disk", "host", "slot")] == [50, 30, 10]
    _, residency = await bench.get("residency")
    assert residency["requests"] == {"live": {"leases": 1, "queued": 1}, "batch": {"leases": 1, "queued": 0}}
    assert residency["tiers"]["slot"] == {"adapters": 1, "size_bytes": 10, "max_adapters": 2}
    held.release()
    held_too.release()
    (await waiting).release()
    assert [bench.value("lorry_adapter_leases", class_=kind) for kind in ("live", "batch")] == [0, 0]
    assert bench.value("lorry_slot_wait_seconds_count", class_="live") == 4
