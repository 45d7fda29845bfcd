"""A step found an adapter lost: what is done, and in which order, over a real pool and real residents."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import pytest
from vllm.exceptions import GracefulHTTPError
from vllm.lora.request import LoRARequest

from serving.engine.cache_paths import CachePaths
from serving.engine.pool.admission import Ticket
from serving.engine.pool.erasure import Removal
from serving.engine.pool.limits import Limits
from serving.engine.pool.pool import AdapterPool
from serving.engine.pool.pool_lease import PoolLease
from serving.engine.pool.tier import Tier
from serving.engine.replacement import replace_lost
from serving.engine.residents import Residents
from serving.engine.urgency import Urgency
from serving.errors import AdapterLost
from tests.support.waiting import settle

ADA, BOB = "v" + "a" * 32, "v" + "b" * 32


class Store:
    """Names versions as the engine's store does, and remembers by which path each was loaded."""

    def __init__(self, models: Any) -> None:
        self.models = models
        self.paths = CachePaths()
        self.loads: list[tuple[str, str]] = []

    def at_hand(self, version_id: str) -> bool:
        return False

    async def install(self, version_id: str, *, urgent: Urgency) -> int:
        return 1

    async def stage(self, version_id: str, *, urgent: Urgency) -> int:
        path = self.paths.of(version_id, f"/cache/{version_id}")
        self.loads.append((version_id, path))
        self.models.lora_requests[version_id] = LoRARequest(
            lora_name=version_id, lora_int_id=len(self.loads), lora_path=path
        )
        return 1

    def abandon(self, version_id: str) -> None: ...

    async def drop(self, version_id: str) -> bool:
        return self.models.lora_requests.pop(version_id, None) is not None

    async def erase(self, version_id: str) -> Removal:
        named = self.models.lora_requests.pop(version_id, None) is not None
        return Removal(named=named, host_bytes=1, slots_zeroed=1, workers=1)

    def lost(self, version_id: str) -> None:
        self.paths.renew(version_id)


class Engine:
    """Generates until it is told to stop; lets go of a request as it aborts it."""

    def __init__(self) -> None:
        self.running: dict[str, asyncio.Event] = {}
        self.leases: dict[str, PoolLease] = {}

    async def generate(
        self, prompt: PoolLease, sampling_params: Any, request_id: str, *, lora_request: Any = None, **rest: Any
    ) -> AsyncGenerator[str, None]:
        self.running[request_id] = asyncio.Event()
        self.leases[request_id] = prompt
        yield "first"
        await self.running[request_id].wait()
        yield "last"

    async def abort(self, request_ids: list[str]) -> None:
        for request_id in request_ids:
            self.leases[request_id].release()
            self.running[request_id].set()


class Counts:
    def __init__(self) -> None:
        self.ends = 0

    def refused(self, error: BaseException) -> None:
        raise AssertionError("nobody is refused here")

    def ended(self, error: BaseException, count: int) -> None:
        self.ends += count


async def test_a_lost_adapter_ends_its_requests_only_and_is_loaded_anew_under_another_path() -> None:
    models = SimpleNamespace(lora_requests={})
    store, engine, counts = Store(models), Engine(), Counts()
    host = Tier("host memory", max_bytes=10, max_entries=4)
    pool = AdapterPool(store, limits=Limits(slots=2), host=host, host_entries=4, host_live_entries=0, arrivals=2)
    residents = Residents(models, engine=engine, gate=lambda version_id: None, counted=counts)  # type: ignore[arg-type]
    residents.take_over(pool)

    async def ask(version_id: str) -> list[str]:
        lease = await pool.lease(Ticket(version_id=version_id))
        request = models.lora_requests[version_id]
        outputs = residents.generate(lease, None, "r", lora_request=request)
        try:
            return [output async for output in outputs]
        finally:
            lease.release()

    ada, bob = asyncio.create_task(ask(ADA)), asyncio.create_task(ask(BOB))
    while len(engine.running) < 2:  # noqa: ASYNC110 - nobody tells when both run
        await asyncio.sleep(0.001)

    await asyncio.wait_for(replace_lost(ADA, store=store, residents=residents), 30)
    with pytest.raises(GracefulHTTPError, match="lost the adapter; ask again") as caught:
        await ada
    assert caught.value.http_status == 503
    assert (counts.ends, bob.done(), [each.version_id for each in pool.holdings()]) == (1, False, [BOB])

    again = asyncio.create_task(ask(ADA))
    while len(engine.running) < 3:  # noqa: ASYNC110 - nobody tells when it runs
        await asyncio.sleep(0.001)
    for event in engine.running.values():
        event.set()
    assert (await again, await bob) == (["first", "last"], ["first", "last"])
    first, second = (path for version_id, path in store.loads if version_id == ADA)
    assert first != second


async def test_nobody_is_given_a_lost_adapter_until_it_was_loaded_anew() -> None:
    models = SimpleNamespace(lora_requests={})
    store, engine = Store(models), Engine()
    host = Tier("host memory", max_bytes=10, max_entries=4)
    pool = AdapterPool(store, limits=Limits(slots=2), host=host, host_entries=4, host_live_entries=0, arrivals=2)
    residents = Residents(models, engine=engine, gate=lambda version_id: None, counted=Counts())  # type: ignore[arg-type]
    residents.take_over(pool)
    held = await pool.lease(Ticket(version_id=ADA))  # not in the engine yet, so nothing can end it
    replacing = asyncio.create_task(replace_lost(ADA, store=store, residents=residents))
    await settle()
    for _ in range(3):
        with pytest.raises(AdapterLost):
            await pool.lease(Ticket(version_id=ADA))
    held.release()
    await asyncio.wait_for(replacing, 30)
    (await pool.lease(Ticket(version_id=ADA))).release()
    assert len(store.loads) == 2


async def test_what_cannot_be_taken_out_is_said_and_goes_no_further(caplog: pytest.LogCaptureFixture) -> None:
    class Stuck:
        async def withdraw(self, version_id: str, reason: Exception, *, because: str = "withheld") -> None:
            raise RuntimeError("the engine does not let go")

    await replace_lost(ADA, store=Store(SimpleNamespace(lora_requests={})), residents=Stuck())
    assert "could not be taken out" in caplog.text
