"""The engine's side of the directory, with a clock that only the test moves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from kit.errors import LorryError
from kit.problems import problem
from registry.client import RegistryClient
from registry.engines.schemas import Orders, Tier, Withheld
from registry.errors import NotServable, VersionNotFound
from registry.manifest import BaseIdentity
from serving.engine import directory
from serving.engine.directory import Directory, waking_time
from serving.engine.installer import SEALED_FILE, Installer
from serving.engine.metrics import EngineMetrics, reason_of
from serving.engine.pool.erasure import Erasure, Removal
from serving.engine.pool.observer import Reason
from serving.engine.proof import engine_proof
from serving.engine.settings import EngineSettings
from serving.errors import EngineOutOfTouch, EngineReplaced
from tests.support.waiting import until

ADA, BOB, CLEO = "v" + "a" * 32, "v" + "b" * 32, "v" + "c" * 32
DIGEST = "0" * 64
BASE = BaseIdentity(
    id="base", config_sha256=DIGEST, weights_sha256=DIGEST, tokenizer_sha256=DIGEST, chat_template_sha256=DIGEST
)


class Answers:
    """A registry that answers as it is told, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.patience: list[float] = []
        self.arrived = 0
        self.orders = Orders(lease_seconds=60)
        self.refusals: list[tuple[int, str]] = []
        self.is_down = False
        self.before_answer: list[Any] = []
        self.answering = asyncio.Event()
        self.answering.set()

    async def answer(self, request: httpx.Request) -> httpx.Response:
        self.arrived += 1
        await self.answering.wait()
        return self(request)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append((request.method, json.loads(request.content)))
        self.patience.append(request.extensions["timeout"]["read"])
        if self.is_down:
            raise httpx.ConnectError("nobody listens")
        for act in self.before_answer:
            act()
        if self.refusals:
            status, code = self.refusals.pop(0)
            answer = problem(status, code=code, title="No.", detail="because")
            return httpx.Response(status, content=bytes(answer.body))
        if request.url.path.endswith("/leave"):
            return httpx.Response(200, json={"state": "left"})
        return httpx.Response(200, content=self.orders.model_dump_json())

    def withhold(self, *orders: Withheld) -> None:
        self.orders = self.orders.model_copy(update={"withheld": orders})


class Memory:
    """What vLLM would hold."""

    def __init__(self) -> None:
        self.versions: set[str] = set()
        self.running: dict[str, int] = {}
        self.withdrawn: list[tuple[str, LorryError]] = []
        self.ended: list[LorryError] = []
        self.retired: list[str] = []
        self.slots: set[str] = set()
        self.stuck = asyncio.Event()
        self.stuck.set()

    def named(self) -> set[str]:
        return self.versions

    def leases(self) -> dict[str, int]:
        return self.running

    async def withdraw(
        self,
        version_id: str,
        reason: LorryError,
        *,
        abort: bool = True,
        wait_seconds: float | None = None,
        because: Reason = "withheld",
    ) -> Erasure | None:
        await self.stuck.wait()
        self.versions.discard(version_id)
        self.withdrawn.append((version_id, reason))
        removal = Removal(named=True, host_bytes=7, slots_zeroed=1, workers=1)
        return Erasure(version_id=version_id, leases=0, refused=0, waited_seconds=0.0, removal=removal)

    async def retire(self, version_id: str) -> bool:
        self.retired.append(version_id)
        return True

    async def end_all(self, reason: LorryError) -> None:
        self.ended.append(reason)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """One directory with everything that a test turns."""

    def __init__(self, cache: Path) -> None:
        self.registry, self.memory, self.clock = Answers(), Memory(), Clock()
        self.measures = CollectorRegistry()
        metrics = EngineMetrics(self.measures)
        self.cache = cache
        self.installer = Installer(cache, metrics=metrics, lock_seconds=1)
        self.installer.open()
        self.client = RegistryClient(
            url="http://registry", token="registry-token", transport=httpx.MockTransport(self.registry.answer)
        )
        settings = EngineSettings(
            base_directory=Path("/models/base"),
            engine_token="engine-token",
            registry_url="http://registry",
            registry_engine_token="registry-token",
            adapter_cache_directory=cache,
            engine_id="engine-1",
            heartbeat_seconds=0.01,
        )
        self.directory = Directory(
            self.client, settings=settings, base=BASE, installer=self.installer, metrics=metrics, clock=self.clock
        )
        self.forgotten: list[str] = []
        self.directory.connect(self.memory, in_slots=lambda: self.memory.slots, on_retired=self.forgotten.append)

    def on_disk(self, version_id: str) -> Path:
        directory = self.cache / version_id
        directory.mkdir()
        (directory / SEALED_FILE).write_bytes(b"secret")
        return directory

    def measure(self, name: str, **labels: str) -> float | None:
        return self.measures.get_sample_value(name, labels)

    async def settle(self) -> None:
        """Let withdrawals in the background end."""
        while self.directory._errands:  # noqa: ASYNC110 - nobody tells when the last one ends
            await asyncio.sleep(0.001)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    await bench.directory.leave()
    await bench.client.close()


def erased(version_id: str) -> Withheld:
    return Withheld(version_id=version_id, reason="erased", delete=True)


def suspended(version_id: str) -> Withheld:
    return Withheld(version_id=version_id, reason="suspended", delete=False)


async def test_before_the_first_answer_every_adapter_is_refused(bench: Bench) -> None:
    with pytest.raises(EngineOutOfTouch, match="not heard from the registry yet"):
        bench.directory.require(ADA)
    await bench.directory.beat()
    bench.directory.require(ADA)
    assert bench.measure("lorry_engine_in_touch") == 1


async def test_the_first_thing_said_is_what_lies_on_disk(bench: Bench) -> None:
    bench.on_disk(ADA)
    (bench.cache / "something-else").mkdir()
    await bench.directory.beat()
    method, registration = bench.registry.asked[0]
    assert (method, registration["holdings"]) == ("PUT", {"disk": [ADA], "host": [], "device": []})


async def test_what_was_erased_is_off_the_disk_before_the_first_adapter_is_served(bench: Bench) -> None:
    gone, kept = bench.on_disk(ADA), bench.on_disk(BOB)
    bench.registry.withhold(erased(ADA))
    await bench.directory.beat()

    assert (gone.exists(), kept.exists()) == (False, True)
    assert list((bench.cache / ".staging").iterdir()) == []
    with pytest.raises(NotServable, match="was erased"):
        bench.directory.require(ADA)
    bench.directory.require(BOB)


async def test_a_suspended_adapter_is_refused_and_leaves_memory_but_not_the_disk(bench: Bench) -> None:
    kept = bench.on_disk(ADA)
    bench.memory.versions = {ADA, BOB}
    await bench.directory.beat()
    bench.registry.withhold(suspended(ADA))
    await bench.directory.beat()

    with pytest.raises(NotServable, match="is suspended") as caught:
        bench.directory.require(ADA)
    assert reason_of(caught.value) == "suspended"
    bench.directory.require(BOB)
    await bench.settle()
    assert [version_id for version_id, _ in bench.memory.withdrawn] == [ADA]
    assert kept.exists()


async def test_a_resumed_adapter_is_let_in_again(bench: Bench) -> None:
    bench.registry.withhold(suspended(ADA))
    await bench.directory.beat()
    bench.registry.withhold()
    await bench.directory.beat()
    bench.directory.require(ADA)


async def test_the_gate_closes_even_while_the_engine_is_stuck_in_a_step(bench: Bench) -> None:
    bench.memory.versions = {ADA, BOB}
    await bench.directory.beat()
    bench.memory.stuck.clear()
    for orders in ([suspended(ADA)], [suspended(ADA), suspended(BOB)]):
        bench.registry.withhold(*orders)
        await bench.directory.beat()
        with pytest.raises(NotServable):
            bench.directory.require(orders[-1].version_id)
    bench.memory.stuck.set()
    await bench.settle()
    assert sorted(version_id for version_id, _ in bench.memory.withdrawn) == [ADA, BOB]  # each once


async def test_orders_do_not_gather_behind_a_removal_that_is_stuck(bench: Bench) -> None:
    await bench.directory.beat()
    bench.memory.versions, bench.memory.running = {ADA, BOB}, {ADA: 1}
    bench.memory.stuck.clear()
    bench.registry.withhold(suspended(ADA), erased(BOB))
    for _ in range(5):
        await bench.directory.beat()
    assert len(bench.directory._errands) == 2
    bench.memory.stuck.set()
    await bench.settle()
    assert sorted(version_id for version_id, _ in bench.memory.withdrawn) == [ADA, BOB]


async def test_files_are_deleted_only_after_memory_let_go_of_them(bench: Bench) -> None:
    await bench.directory.beat()
    files = bench.on_disk(ADA)
    bench.memory.versions = {ADA}
    bench.memory.stuck.clear()
    bench.registry.withhold(erased(ADA))
    await bench.directory.beat()
    await asyncio.sleep(0.02)
    assert files.exists()
    bench.memory.stuck.set()
    await bench.settle()
    assert not files.exists()
    (receipt,) = bench.directory.eraser.receipts()
    assert (receipt.version_id, receipt.because, receipt.disk_bytes) == (ADA, "erased", len(b"secret"))
    assert receipt.ordered_by == "registry"
    assert receipt.to_json()["memory"]["removal"]["slots_zeroed"] == 1
    assert bench.measure("lorry_adapter_evictions_total", tier="disk", reason="erased") == 1


async def test_what_went_while_a_report_of_it_was_under_way_is_not_removed_again(bench: Bench) -> None:
    await bench.directory.beat()
    bench.on_disk(ADA)
    bench.memory.versions = {ADA}
    bench.memory.stuck.clear()
    bench.registry.withhold(erased(ADA))
    await bench.directory.beat()
    bench.registry.answering.clear()
    before = bench.registry.arrived
    reporting = asyncio.create_task(bench.directory.beat())  # it still holds the version
    await until(lambda: bench.registry.arrived > before)
    bench.memory.stuck.set()
    await bench.settle()
    bench.registry.answering.set()
    await reporting
    await bench.settle()
    assert len(bench.directory.eraser.receipts()) == 1

    await bench.directory.beat()  # whoever is told of it again, by an answer to a later report, obeys
    await bench.settle()
    assert len(bench.directory.eraser.receipts()) == 2


async def test_what_a_newer_version_replaced_may_leave_memory_and_stays_servable(bench: Bench) -> None:
    bench.memory.versions = {ADA, BOB}
    await bench.directory.beat()
    bench.registry.orders = Orders(lease_seconds=60, superseded=(ADA,))
    await bench.directory.beat()
    await bench.settle()
    assert (bench.memory.retired, bench.memory.withdrawn) == ([ADA], [])
    assert bench.forgotten == [ADA]  # no warm start brings it back
    bench.directory.require(ADA)


async def test_what_could_not_be_deleted_is_tried_again_with_the_next_heartbeat(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = bench.on_disk(ADA)
    bench.registry.withhold(erased(ADA))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(OSError("busy")))
        await bench.directory.beat()
    assert files.exists()
    with pytest.raises(NotServable):
        bench.directory.require(ADA)
    await bench.directory.beat()
    await bench.settle()
    assert not files.exists()


async def test_an_engine_without_the_registry_serves_until_its_lease_is_over_and_recovers(bench: Bench) -> None:
    await bench.directory.beat()
    bench.registry.is_down = True
    bench.clock.now += 59.9
    await bench.directory.beat()
    bench.directory.require(ADA)
    assert bench.memory.ended == []

    bench.clock.now += 0.2
    with pytest.raises(EngineOutOfTouch):  # by the clock, not by the next heartbeat
        bench.directory.require(ADA)
    await bench.directory.beat()
    assert [type(reason) for reason in bench.memory.ended] == [EngineOutOfTouch]
    assert bench.measure("lorry_engine_in_touch") == 0

    bench.registry.is_down = False
    await bench.directory.beat()
    bench.directory.require(ADA)
    assert bench.measure("lorry_engine_in_touch") == 1


async def test_what_runs_ends_with_the_lease_although_a_heartbeat_waits_for_its_answer(bench: Bench) -> None:
    running = asyncio.create_task(bench.directory.run())
    await until(lambda: bench.directory.closed_because() is None)
    assert set(map(type, bench.memory.ended)) <= {EngineOutOfTouch}  # before the first answer, nothing ran
    bench.memory.ended.clear()
    bench.registry.answering.clear()
    bench.clock.now += 59.9
    await asyncio.sleep(0.05)
    assert bench.memory.ended == []
    bench.clock.now += 0.2
    await until(lambda: bool(bench.memory.ended))
    bench.registry.answering.set()
    await until(lambda: bench.directory.closed_because() is None)
    running.cancel()


async def test_an_answer_that_never_ends_is_a_heartbeat_that_failed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "_CALL_SECONDS", 0.02)
    bench.registry.answering.clear()
    await asyncio.wait_for(bench.directory.beat(), 30)
    assert bench.measure("lorry_engine_heartbeat_seconds_count", outcome="failed") == 1
    monkeypatch.undo()
    bench.registry.answering.set()
    await bench.directory.beat()
    bench.directory.require(ADA)


async def test_the_lease_counts_from_the_question_not_from_the_answer(bench: Bench) -> None:
    def dawdle() -> None:
        bench.clock.now += 30

    bench.registry.before_answer = [dawdle]
    await bench.directory.beat()
    bench.clock.now += 29
    bench.directory.require(ADA)
    bench.clock.now += 2
    with pytest.raises(EngineOutOfTouch):
        bench.directory.require(ADA)


async def test_the_shorter_lease_of_the_two_counts(bench: Bench) -> None:
    bench.registry.orders = Orders(lease_seconds=10)
    await bench.directory.beat()
    bench.clock.now += 11
    assert isinstance(bench.directory.closed_because(), EngineOutOfTouch)


async def test_what_an_outage_hid_is_refused_with_the_first_answer_after_it(bench: Bench) -> None:
    bench.memory.versions = {ADA}
    await bench.directory.beat()
    bench.registry.is_down = True
    bench.clock.now += 100
    await bench.directory.beat()
    bench.registry.is_down = False
    bench.registry.withhold(suspended(ADA))
    await bench.directory.beat()
    with pytest.raises(NotServable):
        bench.directory.require(ADA)


async def test_the_whole_list_is_sent_only_when_it_changed(bench: Bench) -> None:
    await bench.directory.beat()
    await bench.directory.beat()
    bench.memory.versions = {ADA}
    await bench.directory.beat()
    await bench.directory.beat()
    sent = [body.get("holdings") for _, body in bench.registry.asked]
    assert [None if each is None else each["host"] for each in sent] == [[], None, [ADA], None]


async def test_what_is_in_a_slot_is_reported_so_but_slots_that_change_hands_cause_few_reports(bench: Bench) -> None:
    bench.on_disk(CLEO)
    bench.memory.versions, bench.memory.slots = {ADA, BOB}, {ADA}
    await bench.directory.beat()
    bench.memory.slots = {BOB}
    await bench.directory.beat()
    bench.clock.now += 10
    await bench.directory.beat()
    bench.memory.versions = {ADA}  # what has left memory is in no slot, whenever those were read
    await bench.directory.beat()
    assert [body.get("holdings") for _, body in bench.registry.asked] == [
        {"disk": [CLEO], "host": [BOB], "device": [ADA]},
        None,
        {"disk": [CLEO], "host": [ADA], "device": [BOB]},
        {"disk": [CLEO], "host": [ADA], "device": []},
    ]


async def test_the_registry_may_take_as_long_over_a_report_as_there_is_in_it(bench: Bench) -> None:
    await bench.directory.beat()
    await bench.directory.beat()
    bench.memory.versions = {ADA}
    await bench.directory.beat()
    bench.memory.versions = {f"v{number:032x}" for number in range(5_000)}
    await bench.directory.beat()
    bench.memory.versions = {f"v{number:032x}" for number in range(50_000)}
    await bench.directory.beat()
    assert [seconds < 10 for seconds in bench.registry.patience] == [True, True, True, False, False]
    assert max(bench.registry.patience) == 30


async def test_a_change_whose_report_was_lost_is_reported_again(bench: Bench) -> None:
    await bench.directory.beat()
    bench.memory.versions = {ADA}
    bench.registry.is_down = True
    await bench.directory.beat()
    bench.registry.is_down = False
    await bench.directory.beat()
    assert bench.registry.asked[-1][1]["holdings"]["host"] == [ADA]


async def test_an_answer_that_could_not_judge_what_is_held_extends_no_lease(bench: Bench) -> None:
    await bench.directory.beat()
    await bench.directory.beat()
    bench.clock.now += 59
    bench.registry.orders = Orders(lease_seconds=60, report=True)
    await bench.directory.beat()
    bench.clock.now += 2
    assert isinstance(bench.directory.closed_because(), EngineOutOfTouch)
    bench.registry.orders = Orders(lease_seconds=60)
    await bench.directory.beat()
    assert bench.registry.asked[-1][1]["holdings"] is not None
    assert bench.directory.closed_because() is None


async def test_an_engine_that_was_forgotten_registers_again_in_the_same_heartbeat(bench: Bench) -> None:
    await bench.directory.beat()
    bench.clock.now += 59
    bench.registry.refusals = [(404, "engine-not-found")]
    await bench.directory.beat()
    assert [method for method, _ in bench.registry.asked] == ["PUT", "POST", "PUT"]
    bench.clock.now += 30
    bench.directory.require(ADA)


async def test_an_engine_whose_place_was_taken_closes_at_once_and_comes_back_when_it_is_free(bench: Bench) -> None:
    await bench.directory.beat()
    bench.registry.refusals = [(409, "engine-superseded")]
    await bench.directory.beat()
    with pytest.raises(EngineReplaced):
        bench.directory.require(ADA)
    assert [type(reason) for reason in bench.memory.ended] == [EngineReplaced]

    bench.registry.refusals = [(404, "engine-not-found")]
    await bench.directory.beat()
    bench.directory.require(ADA)


@pytest.mark.parametrize(("status", "code"), [(401, "unauthorized"), (403, "forbidden"), (500, "internal")])
async def test_a_registry_that_refuses_the_engine_extends_no_lease(bench: Bench, status: int, code: str) -> None:
    await bench.directory.beat()
    bench.clock.now += 59
    bench.registry.refusals = [(status, code)]
    await bench.directory.beat()
    bench.clock.now += 2
    assert isinstance(bench.directory.closed_because(), EngineOutOfTouch)


async def test_an_unknown_version_is_not_found_and_a_reason_of_tomorrow_is_refused(bench: Bench) -> None:
    bench.registry.withhold(
        Withheld(version_id=ADA, reason="unknown", delete=False),
        Withheld(version_id=BOB, reason="quarantined", delete=False),
    )
    await bench.directory.beat()
    with pytest.raises(VersionNotFound):
        bench.directory.require(ADA)
    with pytest.raises(NotServable, match="quarantined") as caught:
        bench.directory.require(BOB)
    assert reason_of(caught.value) == "not_servable"


async def test_leases_are_told_with_every_heartbeat(bench: Bench) -> None:
    await bench.directory.beat()
    bench.memory.running = {ADA: 2}
    await bench.directory.beat()
    assert bench.registry.asked[-1][1]["leases"] == {ADA: 2}


async def test_nothing_that_goes_wrong_ends_the_heartbeat(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def fail() -> list[str]:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise RuntimeError("nobody foresaw this")
        return []

    monkeypatch.setattr(bench.installer, "installed", fail)
    running = asyncio.create_task(bench.directory.run())
    while not bench.registry.asked:
        await asyncio.sleep(0.005)
        bench.clock.now += 0.01
    running.cancel()
    assert calls >= 3


async def test_an_engine_that_stops_says_so_and_serves_no_more(bench: Bench) -> None:
    await bench.directory.beat()
    await bench.directory.leave()
    assert set(bench.registry.asked[-1][1]) == {"incarnation"}
    assert bench.directory.closed_because() is not None


async def test_an_engine_that_never_registered_leaves_without_a_word(bench: Bench) -> None:
    await bench.directory.leave()
    assert bench.registry.asked == []


async def test_versions_in_memory_count_as_host_and_others_as_disk(bench: Bench) -> None:
    bench.on_disk(ADA)
    bench.on_disk(BOB)
    bench.memory.versions = {BOB}
    await bench.directory.beat()
    holdings = bench.registry.asked[-1][1]["holdings"]
    assert (holdings[Tier.DISK], holdings[Tier.HOST]) == ([ADA], [BOB])


def test_the_waking_clock_goes_on() -> None:
    assert waking_time() <= waking_time()


async def test_an_engine_that_starts_again_on_the_same_disk_shows_the_same_proof(bench: Bench) -> None:
    await bench.directory.beat()
    again = Bench(bench.cache)
    await again.directory.beat()
    await again.client.close()
    (_, first), (_, second) = bench.registry.asked[0], again.registry.asked[0]
    assert first["proof"] == second["proof"]
    assert first["incarnation"] != second["incarnation"] == again.directory.presence.incarnation
    assert engine_proof(bench.cache, engine_id="engine-2") != first["proof"]
    assert (bench.cache / ".engine-secret").stat().st_mode & 0o077 == 0


async def test_an_answer_that_lacks_some_lifts_nothing_and_opens_nothing(bench: Bench) -> None:
    bench.registry.orders = Orders(lease_seconds=60, report=True)
    await bench.directory.beat()
    with pytest.raises(EngineOutOfTouch):
        bench.directory.require(ADA)
    bench.registry.orders = Orders(lease_seconds=60)
    bench.registry.withhold(suspended(ADA))
    await bench.directory.beat()
    bench.registry.orders = Orders(lease_seconds=60, report=True)
    await bench.directory.beat()
    with pytest.raises(NotServable):
        bench.directory.require(ADA)
    bench.directory.require(BOB)
