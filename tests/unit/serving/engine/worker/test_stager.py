"""The stager beside the link: orders are met once, ends are heard, and what is dropped is gone."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from serving.engine.opened import OpenedAdapter, OpenedFiles
from serving.engine.worker.link import Activation, Staged, WorkerLink
from serving.engine.worker.signals import SignalReceiver, SignalSender
from serving.engine.worker.stager import StageOrder, Stager
from serving.engine.worker.weights_file import AdapterFiles
from serving.errors import AdapterDamaged, AdapterInUse, AdapterNotLoaded, AdapterUnfit, EngineMisconfigured
from tests.support.adapters import write_adapter
from tests.support.opened import opened_directory
from tests.support.waiting import until


@dataclass
class Kept:
    """A prepared adapter that is nothing but its tensors."""

    tensors: list[torch.Tensor]

    @property
    def size_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors)

    def wipe(self) -> None:
        for tensor in self.tensors:
            tensor.zero_()


class Worker:
    """One worker's parts as vLLM would run them, without vLLM."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.signals = SignalSender()
        self.stager: Stager[Kept] = Stager(self.prepare, signals=self.signals)
        self.prepared: list[str] = []
        self.prepare_as: type[Kept] = Kept
        self.may_prepare = threading.Event()
        self.may_prepare.set()
        self.scheduled: list[bool] = []

    def prepare(self, order: StageOrder, files: AdapterFiles) -> Kept:
        self.prepared.append(order.version_id)
        assert self.may_prepare.wait(10)
        if order.version_id == "odd":
            raise RuntimeError("something vLLM says")
        if order.version_id == "wordy":
            raise ValueError(f"expected modules {['a_module_that_nobody_knows'] * 10_000}")
        if order.version_id == "unfit":
            raise AdapterUnfit("too wide", field="q_proj")
        return self.prepare_as(list(files.tensors.values()))

    def lorry_connect(self, address: str) -> dict[str, int]:
        self.signals.connect(address, rank=self.rank)
        return {"rank": self.rank}

    def lorry_stage(self, version_id: str, number: int, files: dict[str, Any], urgent: bool, call: int) -> str:
        order = StageOrder(version_id=version_id, number=number, files=OpenedFiles.of(files), urgent=urgent, call=call)
        return self.stager.stage(order)

    def lorry_residents(self) -> dict[str, Any]:
        return {"host": self.stager.residents(), "slots": []}

    def lorry_drop(self, version_id: str) -> dict[str, Any]:
        if self.scheduled and self.scheduled.pop():
            return {"removed": False, "reason": "scheduled"}
        return {"removed": True, "freed_bytes": self.stager.drop(version_id), "slots_zeroed": 0}

    def close(self) -> None:
        self.may_prepare.set()
        self.stager.close()
        self.signals.close()


@pytest.fixture
def workers() -> Iterator[list[Worker]]:
    workers = [Worker(rank) for rank in (0, 1)]
    yield workers
    for worker in workers:
        worker.close()


@pytest.fixture
async def link(workers: list[Worker], tmp_path: Path) -> AsyncIterator[WorkerLink]:
    link = WorkerLink(calling(workers))
    await link.open(tmp_path / "signals")
    yield link
    link.close()


def calling(workers: list[Worker]) -> Callable[..., Any]:
    async def call(method: str, *, args: tuple[Any, ...]) -> list[Any]:
        return [getattr(worker, method)(*args) for worker in workers]

    return call


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[OpenedAdapter]:
    with opened_directory(write_adapter(tmp_path / "adapter")) as opened:
        yield opened


@pytest.fixture
def adapter(opened: OpenedAdapter) -> dict[str, Any]:
    return {"number": 1, "files": opened.files}


async def test_staging_ends_when_every_worker_is_ready(
    link: WorkerLink, workers: list[Worker], adapter: dict[str, Any]
) -> None:
    workers[1].may_prepare.clear()
    task = asyncio.create_task(link.stage("v1", **adapter))
    await until(lambda: bool(workers[0].stager.residents()))
    assert not task.done()
    workers[1].may_prepare.set()
    staged = await task
    assert staged.size_bytes == sum(sum(worker.stager.residents().values()) for worker in workers) > 0
    assert staged.seconds.keys() == {"queue", "read", "prepare"}
    assert await link.stage("v1", **adapter) == Staged(size_bytes=staged.size_bytes, seconds={})


async def test_orders_for_one_adapter_are_met_by_one_preparation(
    link: WorkerLink, workers: list[Worker], adapter: dict[str, Any]
) -> None:
    workers[0].may_prepare.clear()
    order = StageOrder(version_id="v1", number=1, files=adapter["files"])
    states = [workers[0].stager.stage(order) for _ in range(5)]
    workers[0].may_prepare.set()
    await link.stage("v1", **adapter)
    assert (states, workers[0].prepared) == (["queued"] * 5, ["v1"])


async def test_everybody_who_ordered_an_adapter_hears_of_it(
    link: WorkerLink, workers: list[Worker], adapter: dict[str, Any]
) -> None:
    workers[0].may_prepare.clear()
    tasks = [asyncio.create_task(link.stage("v1", **adapter)) for _ in range(3)]
    await until(lambda: bool(workers[0].prepared))
    workers[0].may_prepare.set()
    await asyncio.gather(*tasks)
    assert workers[0].prepared == workers[1].prepared == ["v1"]
    unfit = [asyncio.create_task(link.stage("unfit", **adapter)) for _ in range(3)]
    refusals = await asyncio.gather(*unfit, return_exceptions=True)
    assert [type(refusal) for refusal in refusals] == [AdapterUnfit] * 3


async def test_live_goes_before_batch(link: WorkerLink, workers: list[Worker], adapter: dict[str, Any]) -> None:
    workers[0].may_prepare.clear()

    def order(version_id: str, *, urgent: bool) -> asyncio.Task[Staged]:
        return asyncio.create_task(link.stage(version_id, **adapter, urgent=urgent))

    tasks = [order("first", urgent=False)]
    await until(lambda: workers[0].prepared == ["first"])
    tasks += [order(name, urgent=name.startswith("live")) for name in ("batch-1", "batch-2", "live-1", "live-2")]
    await asyncio.sleep(0)
    tasks += [order("batch-2", urgent=True)]  # now a live request wants it as well
    await asyncio.sleep(0)
    workers[0].may_prepare.set()
    await asyncio.gather(*tasks)
    assert workers[0].prepared == ["first", "live-1", "live-2", "batch-2", "batch-1"]


@pytest.mark.parametrize(
    ("version_id", "expected", "text"),
    [
        ("unfit", AdapterUnfit, "too wide"),
        ("odd", AdapterNotLoaded, "something vLLM says"),
        ("wordy", AdapterNotLoaded, "expected modules"),
    ],
)
async def test_a_refusal_comes_back_with_its_reason_and_the_thread_goes_on(
    link: WorkerLink, adapter: dict[str, Any], version_id: str, expected: type[Exception], text: str
) -> None:
    with pytest.raises(expected, match=text):
        await asyncio.wait_for(link.stage(version_id, **adapter), 10)
    await link.stage("v1", **adapter)


async def test_memory_that_is_gone_or_another_adapters_is_refused(
    link: WorkerLink, workers: list[Worker], adapter: dict[str, Any], opened: OpenedAdapter, tmp_path: Path
) -> None:
    with opened_directory(write_adapter(tmp_path / "another", seed=9)) as another:
        swapped = replace(adapter["files"], path=another.files.path)
        with pytest.raises(AdapterDamaged, match="not what was opened"):
            await link.stage("v1", number=1, files=swapped)
    opened.close()
    with pytest.raises(AdapterDamaged, match=r"cannot be read|not what was opened"):  # its number may be reused
        await link.stage("v1", **adapter)
    assert workers[0].stager.residents() == {}
    assert workers[0].prepared == []


async def test_what_is_dropped_while_it_is_prepared_never_arrives(
    link: WorkerLink, workers: list[Worker], adapter: dict[str, Any]
) -> None:
    for worker in workers:
        worker.may_prepare.clear()
    task = asyncio.create_task(link.stage("v1", **adapter))
    await until(lambda: all(worker.prepared for worker in workers))
    assert (await link.drop("v1")).freed_bytes == 0
    for worker in workers:
        worker.may_prepare.set()
    with pytest.raises(AdapterNotLoaded, match="removed while"):
        await task
    assert [worker.stager.residents() for worker in workers] == [{}, {}]


async def test_dropping_frees_and_wiping_overwrites(
    link: WorkerLink, workers: list[Worker], adapter: dict[str, Any]
) -> None:
    await link.stage("v1", **adapter)
    kept = workers[0].stager.get("v1")
    assert kept is not None
    assert workers[0].stager.drop("v1", wipe=True) == kept.size_bytes
    assert not any(bool(tensor.any()) for tensor in kept.tensors)
    assert (await link.drop("v1")).freed_bytes == kept.size_bytes  # the other worker's


async def test_a_removal_waits_for_the_step_that_lets_go(link: WorkerLink, workers: list[Worker]) -> None:
    workers[1].scheduled = [False, True, True]
    await link.drop("v1")
    workers[1].scheduled = [True] * 100
    with pytest.raises(AdapterInUse, match="let go"):
        await link.drop("v1")


async def test_staging_that_never_ends_is_given_up(
    workers: list[Worker], adapter: dict[str, Any], tmp_path: Path
) -> None:
    link = WorkerLink(calling(workers), stage_seconds=0.05)
    await link.open(tmp_path / "signals")
    workers[0].may_prepare.clear()
    with pytest.raises(AdapterNotLoaded, match="in time"):
        await link.stage("v1", **adapter)
    link.close()


async def test_activations_and_losses_are_told(workers: list[Worker], tmp_path: Path) -> None:
    heard: list[Any] = []
    link = WorkerLink(calling(workers), on_activated=heard.append, on_lost=heard.append)
    await link.open(tmp_path / "signals")
    workers[0].signals.send("activated", version_id="v1", slot=2, seconds=0.5)
    workers[0].signals.send("something else")
    workers[0].signals.send("lost", version_id="v2")
    await until(lambda: len(heard) >= 2)
    assert heard == [Activation(version_id="v1", slot=2, rank=0, seconds=0.5), "v2"]
    link.close()


async def test_workers_without_our_parts_are_a_misconfiguration(tmp_path: Path) -> None:
    async def call(method: str, *, args: tuple[Any, ...]) -> list[Any]:
        raise Exception("no such method")  # noqa: TRY002  # as vLLM does

    with pytest.raises(EngineMisconfigured, match="no such method"):
        await WorkerLink(call).open(tmp_path / "signals")
    assert list((tmp_path / "signals").iterdir()) == []


async def test_a_receiver_removes_what_killed_ones_left_and_nothing_of_the_living(tmp_path: Path) -> None:
    for name in ("killed", "living"):
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        channel.bind(str(tmp_path / f"{name}.sock"))
        if name == "killed":
            channel.close()
    receiver = SignalReceiver(lambda signal: None)
    address = await receiver.open(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([Path(address), tmp_path / "living.sock"])
    receiver.close()
    channel.close()
    assert [path.name for path in tmp_path.iterdir()] == ["living.sock"]


async def test_a_thousand_signals_arrive_whole_and_in_order(tmp_path: Path) -> None:
    heard: list[int] = []
    receiver, sender = SignalReceiver(lambda signal: heard.append(signal["number"])), SignalSender()
    sender.connect(await receiver.open(tmp_path / "signals"), rank=0)
    for number in range(1000):
        sender.send("count", number=number)
    await until(lambda: len(heard) >= 1000)
    assert heard == list(range(1000))
    sender.close()
    receiver.close()
    assert (tmp_path / "signals").stat().st_mode & 0o077 == 0


def test_a_sender_without_a_receiver_disturbs_nobody(tmp_path: Path) -> None:
    sender = SignalSender()
    sender.send("nobody listens")
    sender.connect(str(tmp_path / "gone.sock"), rank=0)
    sender.send("nobody is there")
    sender.close()


async def test_a_signal_that_cannot_be_sent_or_used_does_not_keep_the_next_from_arriving(tmp_path: Path) -> None:
    heard: list[Any] = []

    def hear(signal: Any) -> None:
        heard.append(signal["number"])  # as a mistake in what listens would

    receiver, sender = SignalReceiver(hear), SignalSender()
    sender.connect(await receiver.open(tmp_path), rank=0)
    try:
        sender.send("odd", number={1, 2})  # JSON knows no sets
        sender.send("odder")
        sender.send("well", number=7)
        await until(lambda: heard == [7])
    finally:
        sender.close()
        receiver.close()


async def test_the_thread_outlives_an_adapter_that_cannot_even_be_overwritten(
    link: WorkerLink, workers: list[Worker], adapter: dict[str, Any]
) -> None:
    class Stuck(Kept):
        def wipe(self) -> None:
            raise RuntimeError("a device that has gone away")

    worker = workers[0]
    worker.prepare_as = Stuck
    worker.may_prepare.clear()
    staging = asyncio.create_task(link.stage("one", **adapter))
    await until(lambda: worker.prepared == ["one"])
    worker.stager.drop("one", wipe=True)
    worker.may_prepare.set()
    await asyncio.gather(staging, return_exceptions=True)
    worker.prepare_as = Kept
    assert (await link.stage("two", **adapter)).size_bytes > 0
