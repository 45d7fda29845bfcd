"""The door behind vLLM's table of adapters, before a stand-in for vLLM's engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import pytest
from vllm.exceptions import GracefulHTTPError
from vllm.lora.request import LoRARequest

from kit.errors import LorryError
from registry.errors import NotServable
from serving.engine.pool.erasure import Erasure, Removal
from serving.engine.pool.observer import Reason
from serving.engine.residents import Residents
from serving.errors import AdapterInUse, AdapterLost
from tests.support.waiting import settle

ADA, BOB = "v" + "a" * 32, "v" + "b" * 32


class Engine:
    """Generates three tokens a request, the next one whenever `step` is called; can abort, as vLLM does."""

    def __init__(self) -> None:
        self.queues: dict[str, asyncio.Queue[tuple[str, bool]]] = {}
        self.seen: list[str] = []

    async def generate(
        self, prompt: str, sampling_params: object, request_id: str, *, lora_request: Any = None, **rest: Any
    ) -> AsyncGenerator[str, None]:
        queue = self.queues[request_id] = asyncio.Queue()
        self.seen.append(request_id)
        try:
            is_last = False
            while not is_last:
                text, is_last = await queue.get()
                yield text
        finally:
            self.queues.pop(request_id, None)

    def step(self, text: str, *, is_last: bool = False) -> None:
        for queue in self.queues.values():
            queue.put_nowait((text, is_last))

    async def abort(self, request_ids: list[str]) -> None:
        for request_id in request_ids:
            if request_id in self.queues:
                self.queues[request_id].put_nowait(("", True))


class Memory:
    """Takes adapters out once nobody runs on them in the engine, as the pool does."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.withdrawn: list[str] = []
        self.may_go = asyncio.Event()
        self.may_go.set()
        self.left: frozenset[str] = frozenset()

    async def withdraw(
        self, version_id: str, reason: LorryError, *, wait_seconds: float | None = None, because: Reason = "withheld"
    ) -> Erasure:
        await self.may_go.wait()
        self.withdrawn.append(version_id)
        removal = Removal(named=True, host_bytes=1, slots_zeroed=1, workers=1)
        return Erasure(version_id=version_id, leases=0, refused=0, waited_seconds=0.0, removal=removal)

    async def retire(self, version_id: str) -> bool:
        return True

    def held(self) -> frozenset[str]:
        return self.left


class Counts:
    def __init__(self) -> None:
        self.refusals: list[BaseException] = []
        self.ends: list[int] = []

    def refused(self, error: BaseException) -> None:
        self.refusals.append(error)

    def ended(self, error: BaseException, count: int) -> None:
        self.ends.append(count)


class Gate:
    def __init__(self) -> None:
        self.refused: set[str] = set()

    def __call__(self, version_id: str) -> None:
        if version_id in self.refused:
            raise NotServable(f"Version {version_id} is suspended.")


class Bench:
    def __init__(self) -> None:
        self.engine, self.gate, self.counts = Engine(), Gate(), Counts()
        self.adapters = {
            name: LoRARequest(lora_name=name, lora_int_id=n, lora_path="/p") for n, name in ((1, ADA), (2, BOB))
        }
        self.models = SimpleNamespace(lora_requests=dict(self.adapters))
        self.residents = Residents(
            self.models,  # type: ignore[arg-type]
            engine=self.engine,  # type: ignore[arg-type]
            gate=self.gate,
            counted=self.counts,
        )
        self.memory = Memory(self.engine)
        self.residents.take_over(self.memory)

    def ask(self, version_id: str | None, request_id: str = "r") -> asyncio.Task[list[str]]:
        adapter = None if version_id is None else self.adapters[version_id]
        outputs = self.engine.generate("prompt", None, request_id, lora_request=adapter)

        async def collect() -> list[str]:
            return [output async for output in outputs]

        return asyncio.create_task(collect())


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_a_request_is_a_lease_from_its_first_step_to_its_last(bench: Bench) -> None:
    asking = bench.ask(ADA)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert bench.residents.leases() == {ADA: 1}
    bench.engine.step("a")
    bench.engine.step("b", is_last=True)
    assert await asking == ["a", "b"]
    assert bench.residents.leases() == {}


async def test_a_refused_adapter_is_refused_before_anything_is_generated(bench: Bench) -> None:
    bench.gate.refused = {ADA}
    with pytest.raises(GracefulHTTPError, match="is suspended") as caught:
        bench.engine.generate("prompt", None, "r", lora_request=bench.adapters[ADA])
    assert caught.value.http_status == 409
    assert bench.engine.seen == []


async def test_what_was_refused_between_admission_and_start_does_not_start(bench: Bench) -> None:
    outputs = bench.engine.generate("prompt", None, "r", lora_request=bench.adapters[ADA])
    bench.gate.refused = {ADA}
    with pytest.raises(GracefulHTTPError):
        await anext(outputs)
    assert (bench.engine.seen, bench.residents.leases()) == ([], {})


async def test_requests_to_the_base_model_pass_whatever_is_refused(bench: Bench) -> None:
    bench.gate.refused = {ADA, BOB}
    asking = bench.ask(None)
    await asyncio.sleep(0)
    await bench.residents.end_all(NotServable())
    bench.engine.step("base", is_last=True)
    assert await asking == ["base"]
    assert bench.engine.seen == ["r"]


async def test_withdrawing_ends_what_runs_and_leaves_others_alone(bench: Bench) -> None:
    ada, bob = bench.ask(ADA, "one"), bench.ask(BOB, "two")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    bench.gate.refused = {ADA}
    bench.memory.may_go.clear()
    withdrawing = asyncio.create_task(bench.residents.withdraw(ADA, NotServable("Version is suspended.")))
    with pytest.raises(GracefulHTTPError, match="suspended"):
        await ada
    assert sorted(bench.models.lora_requests) == [ADA, BOB], "a name goes with the weights"
    bench.memory.may_go.set()
    assert (await withdrawing) is not None
    assert (bench.memory.withdrawn, bench.counts.ends) == ([ADA], [1])
    bench.engine.step("b", is_last=True)
    assert await bob == ["b"]


async def test_ending_one_request_does_not_end_another_that_chose_the_same_name(bench: Bench) -> None:
    ada, bob = bench.ask(ADA, "same"), bench.ask(BOB, "same")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(bench.engine.queues) == 2
    await bench.residents.end(ADA, NotServable())
    with pytest.raises(GracefulHTTPError):
        await ada
    bench.engine.step("b", is_last=True)
    assert await bob == ["b"]


async def test_withdrawing_without_aborting_lets_what_runs_finish(bench: Bench) -> None:
    ada = bench.ask(ADA)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    bench.memory.may_go.clear()
    withdrawing = asyncio.create_task(bench.residents.withdraw(ADA, NotServable(), abort=False))
    await settle()
    bench.engine.step("a", is_last=True)
    assert await ada == ["a"]
    bench.memory.may_go.set()
    await withdrawing
    assert bench.counts.ends == []


async def test_a_withdrawal_that_takes_too_long_leaves_what_it_found(bench: Bench) -> None:
    async def never(version_id: str, reason: LorryError, **more: Any) -> Erasure:
        await asyncio.sleep(0.01)
        raise AdapterInUse

    bench.memory.withdraw = never  # type: ignore[method-assign]
    with pytest.raises(AdapterInUse):
        await bench.residents.withdraw(ADA, NotServable(), abort=True, wait_seconds=0.0)
    assert bench.models.lora_requests == bench.adapters
    late = bench.ask(ADA)
    await settle()
    await asyncio.sleep(0.1)
    bench.engine.step("a", is_last=True)
    assert await late == ["a"], "nothing goes on ending requests"


async def test_who_begins_while_a_version_is_withdrawn_is_ended_too(bench: Bench) -> None:
    bench.memory.may_go.clear()
    withdrawing = asyncio.create_task(bench.residents.withdraw(ADA, NotServable("Version is suspended.")))
    early = bench.engine.generate("prompt", None, "early", lora_request=bench.adapters[ADA])
    await settle()
    with pytest.raises(GracefulHTTPError, match="suspended"):
        bench.ask(ADA)  # had its lease already, and vLLM had looked its name up
    with pytest.raises(GracefulHTTPError, match="suspended"):
        await anext(early)
    assert bench.engine.seen == [], "not even one token of theirs is computed"
    bench.memory.may_go.set()
    await withdrawing
    again = bench.ask(ADA)
    await settle()
    bench.engine.step("a", is_last=True)
    assert await again == ["a"]


async def test_nothing_that_was_computed_before_the_end_reaches_anybody_after_it(bench: Bench) -> None:
    ada = bench.ask(ADA)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    bench.memory.may_go.clear()
    withdrawing = asyncio.create_task(bench.residents.withdraw(ADA, AdapterLost()))
    bench.engine.step("computed with zeros", is_last=True)
    with pytest.raises(GracefulHTTPError, match="lost the adapter"):
        await ada
    bench.memory.may_go.set()
    await withdrawing


async def test_a_refusal_is_counted_once(bench: Bench) -> None:
    bench.gate.refused = {ADA}
    with pytest.raises(GracefulHTTPError):
        bench.engine.generate("prompt", None, "r", lora_request=bench.adapters[ADA])
    assert [type(each) for each in bench.counts.refusals] == [NotServable]


async def test_a_client_that_goes_away_ends_its_lease(bench: Bench) -> None:
    asking = bench.ask(ADA)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert (bench.residents.leases(), bench.engine.queues) == ({}, {})


def test_a_version_that_is_being_loaded_counts_as_held(bench: Bench) -> None:
    new = "v" + "c" * 32
    with bench.residents.arriving(new):
        assert bench.residents.named() == {ADA, BOB, new}
    assert bench.residents.named() == {ADA, BOB}


def test_what_an_evicted_version_left_in_a_slot_counts_as_held(bench: Bench) -> None:
    gone = "v" + "d" * 32
    bench.memory.left = frozenset({ADA, gone})
    assert bench.residents.named() == {ADA, BOB, gone}
