"""The store between the pool and the workers: what is leaving is neither named nor staged, and is never forgotten."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from kit.errors import LorryError
from registry.errors import NotServable
from serving.engine.metrics import EngineMetrics
from serving.engine.opened import OpenedAdapter
from serving.engine.pool.admission import Ticket
from serving.engine.pool.limits import Limits
from serving.engine.pool.pool import AdapterPool
from serving.engine.pool.tier import Tier
from serving.engine.store import EngineStore
from serving.engine.urgency import Urgency
from serving.engine.worker import link as link_module
from serving.engine.worker.link import WorkerLink
from serving.errors import AdapterInUse, AdapterNotLoaded
from tests.support.waiting import settle, until

SIZES = {"a": 4, "b": 4, "c": 4, "keep": 4, "big": 12}
STEP_SECONDS = 0.02


class Worker:
    """Does what it is called for between two steps, in order; refuses to remove what is scheduled."""

    def __init__(self) -> None:
        self.host: set[str] = set()
        self.scheduled: set[str] = set()
        self.calls: list[str] = []
        self.silent = False
        self.as_it_begins: Callable[[], None] = lambda: None
        self._turn = asyncio.Lock()

    async def call(self, method: str, *, args: tuple[Any, ...]) -> list[Any]:
        async with self._turn:
            if method == "lorry_connect":
                return [{"rank": 0}]
            if method == "lorry_residents":
                return [{"host": {version_id: SIZES[version_id] for version_id in self.host}}]
            version_id = args[0]
            self.calls.append(f"{method.removeprefix('lorry_')} {version_id}")
            self.as_it_begins()
            await asyncio.sleep(STEP_SECONDS)
            if method == "lorry_stage":
                self.host.add(version_id)
                return ["queued" if self.silent else "staged"]
            if version_id in self.scheduled:
                return [{"removed": False}]
            self.host.discard(version_id)
            return [{"removed": True, "freed_bytes": 1, "slots_zeroed": 1}]


class Source:
    """Has everything at once."""

    def __init__(self) -> None:
        self.rejected: list[str] = []
        self.opens: asyncio.Event | None = None  # unset = it opens nothing, and breaks off only when this is set

    def at_hand(self, version_id: str) -> bool:
        return True

    async def find(self, version_id: str) -> Any:
        return SimpleNamespace(version_id=version_id, weights_bytes=SIZES[version_id])

    async def open(self, offer: Any, *, urgent: Urgency) -> OpenedAdapter:
        if self.opens is not None:
            try:
                await asyncio.Event().wait()
            finally:
                await self.opens.wait()
        opened = OpenedAdapter(0)
        opened.freeze(())
        return opened

    def reject(self, version_id: str, error: LorryError) -> None:
        self.rejected.append(version_id)

    def directory_of(self, version_id: str) -> Path:
        return Path("/cache") / version_id


class Rig:
    def __init__(self) -> None:
        self.worker = Worker()
        self.link = WorkerLink(self.worker.call, stage_seconds=0.1)
        self.source = Source()
        numbers = iter(range(1, 1000))
        counter = SimpleNamespace(inc=lambda _: next(numbers))
        self.models = SimpleNamespace(lora_requests={}, lora_id_counter=counter)
        self.held: Counter[str] = Counter()
        self.withheld: set[str] = set()
        self.store = EngineStore(
            self.source,  # type: ignore[arg-type]
            link=self.link,
            models=self.models,  # type: ignore[arg-type]
            gate=self.gate,
            arriving=self.arriving,
            metrics=EngineMetrics(CollectorRegistry()),
        )
        self.pool = AdapterPool(
            self.store,
            limits=Limits(slots=4),
            host=Tier("host memory", max_bytes=16, max_entries=32),
            host_entries=18,
            host_live_entries=1,
            arrivals=2,
        )

    def gate(self, version_id: str) -> None:
        if version_id in self.withheld:
            raise NotServable

    @contextmanager
    def arriving(self, version_id: str) -> Iterator[None]:
        self.held[version_id] += 1
        try:
            yield
        finally:
            self.held[version_id] -= 1
            self.held += Counter()

    async def bring(self, *versions: str) -> None:
        for version_id in versions:
            (await self.pool.lease(Ticket(version_id=version_id))).release()


@pytest.fixture
async def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    monkeypatch.setattr(link_module, "_REMOVAL_PAUSES_SECONDS", (0.001,))
    rig = Rig()
    await rig.link.open(tmp_path / "signals")
    yield rig
    rig.link.close()


async def test_what_is_asked_for_while_it_leaves_beside_others_comes_back_and_stays(rig: Rig) -> None:
    await rig.bring("a", "b", "c", "keep")
    big = asyncio.create_task(rig.pool.lease(Ticket(version_id="big")))
    while "a" in rig.models.lora_requests:  # noqa: ASYNC110  # the pool tells nobody
        await asyncio.sleep(0)
    assert set(rig.models.lora_requests) == {"keep"}, "all that leave are given up at the same moment"

    lease = await rig.pool.lease(Ticket(version_id="c"))  # which makes room by taking out "keep"
    (await big).release()
    await until(lambda: rig.worker.host == {"big", "c"})
    assert rig.worker.calls.index("drop c") < len(rig.worker.calls) - rig.worker.calls[::-1].index("stage c") - 1
    assert (set(rig.models.lora_requests), rig.worker.host) == ({"big", "c"}, {"big", "c"})
    lease.release()


async def test_what_the_workers_keep_goes_on_taking_room_and_leaves_with_the_next(rig: Rig) -> None:
    await rig.bring("a", "b")
    rig.worker.scheduled = {"a"}
    await rig.pool.evict("a")
    assert (rig.pool.held(), set(rig.models.lora_requests)) == ({"a", "b"}, {"b"})
    assert [holding.version_id for holding in rig.pool.holdings()] == ["b"]

    rig.worker.scheduled = set()
    await rig.bring("big", "c")  # for which all others have to leave
    assert rig.worker.host == rig.pool.held() == {"big", "c"}
    assert rig.pool.host.size_bytes == 16


async def test_a_refused_erasure_erases_nothing_however_often_it_is_asked_for(rig: Rig) -> None:
    await rig.bring("a")
    rig.worker.scheduled = {"a"}
    for _ in range(2):
        with pytest.raises(AdapterInUse):
            await rig.pool.withdraw("a", AdapterNotLoaded())
        assert (rig.worker.host, rig.pool.held()) == ({"a"}, {"a"})

    rig.worker.scheduled = set()
    assert (await rig.pool.withdraw("a", AdapterNotLoaded())).removal.slots_zeroed == 1
    assert (rig.worker.host, rig.pool.held(), rig.pool.host.size_bytes) == (set(), set(), 0)


async def test_what_the_workers_did_not_stage_in_time_is_taken_out_of_them(rig: Rig) -> None:
    rig.worker.silent = True
    with pytest.raises(AdapterNotLoaded, match="in time"):
        await rig.bring("a")
    assert (rig.held["a"], rig.source.rejected) == (1, ["a"]), "it counts as held until it is out"
    rig.worker.silent = False
    await rig.bring("a")
    assert (rig.worker.calls, rig.worker.host, rig.held) == (["stage a", "drop a", "stage a"], {"a"}, Counter())


async def test_what_is_withheld_while_it_is_staged_is_taken_out_again(rig: Rig) -> None:
    rig.worker.as_it_begins = lambda: rig.withheld.add("a")
    with pytest.raises(NotServable):
        await rig.bring("a")
    assert (rig.worker.host, rig.models.lora_requests, rig.held) == (set(), {}, Counter())


async def test_an_erasure_ends_when_nothing_is_being_opened_any_more_and_who_waited_hears_at_once(rig: Rig) -> None:
    rig.source.opens = asyncio.Event()
    asking = asyncio.create_task(rig.pool.lease(Ticket(version_id="a")))
    await until(lambda: rig.held["a"] > 0)
    erasing = asyncio.create_task(rig.pool.withdraw("a", AdapterInUse()))
    with pytest.raises(AdapterInUse):
        await asyncio.wait_for(asking, 30)
    await asyncio.sleep(3 * STEP_SECONDS)
    assert (erasing.done(), rig.held["a"] > 0) == (False, True)
    rig.source.opens.set()
    await asyncio.wait_for(erasing, 30)
    await until(lambda: (rig.held, rig.store._ending) == (Counter(), {}))


async def test_who_goes_away_stops_no_removal(rig: Rig) -> None:
    await rig.bring("a", "b")
    leaving = asyncio.create_task(rig.pool.evict("a"))
    erasing = asyncio.create_task(rig.pool.withdraw("b", AdapterNotLoaded()))
    await settle()
    leaving.cancel()
    erasing.cancel()
    await until(lambda: (rig.worker.host, rig.held) == (set(), Counter()))


async def test_what_fails_in_a_worker_is_told_as_a_refusal_and_costs_no_bound(rig: Rig) -> None:
    await rig.bring("a")

    async def fail(method: str, *, args: tuple[Any, ...]) -> list[Any]:
        raise Exception("Call to collective_rpc method failed: A slot still holds weights")  # noqa: TRY002  # as vLLM does

    rig.link._call, call = fail, rig.link._call
    with pytest.raises(AdapterNotLoaded, match="A slot still holds weights"):
        await rig.pool.withdraw("a", AdapterNotLoaded())
    with pytest.raises(AdapterNotLoaded, match="A slot still holds weights"):
        await rig.bring("b")
    assert rig.source.rejected == ["b"]
    rig.link._call = call
    assert rig.pool.held() == {"a"}
    await rig.pool.withdraw("a", AdapterNotLoaded())
    assert (rig.pool.held(), rig.worker.host) == (set(), set())
