"""How `serving.engine.worker_seam` and `worker.{doze,seeds}` get into vLLM's workers, and what they meet there."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import zmq
from vllm.distributed.device_communicators.shm_broadcast import SpinCondition
from vllm.lora.request import LoRARequest
from vllm.lora.worker_manager import LRUCacheWorkerLoRAManager
from vllm.v1.engine.output_processor import OutputProcessor
from vllm.v1.worker import lora_model_runner_mixin
from vllm.v1.worker.cpu_model_runner import CPUModelRunner
from vllm.v1.worker.cpu_worker import CPUWorker
from vllm.v1.worker.gpu.lora_utils import LoraState
from vllm.v1.worker.gpu.model_runner import GPUModelRunner as GPUModelRunnerV2
from vllm.v1.worker.gpu_model_runner import GPUModelRunner
from vllm.v1.worker.gpu_worker import Worker
from vllm.v1.worker.lora_model_runner_mixin import LoRAModelRunnerMixin
from vllm.v1.worker.worker_base import WorkerBase

from serving.engine import worker_seam
from serving.engine.worker import doze, seeds
from serving.engine.worker.extension import LorryWorker
from serving.errors import AdapterNotLoaded

ORIGINAL_REMOVE = LoRAModelRunnerMixin.remove_lora


def test_every_runner_builds_its_manager_by_the_name_that_we_replace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lora_model_runner_mixin, "LRUCacheWorkerLoRAManager", LRUCacheWorkerLoRAManager)
    monkeypatch.setattr(LoRAModelRunnerMixin, "remove_lora", ORIGINAL_REMOVE)
    worker_seam.install()
    worker_seam.install()
    assert lora_model_runner_mixin.LRUCacheWorkerLoRAManager is worker_seam.PooledWorkerManager
    for runner in (CPUModelRunner, GPUModelRunner, GPUModelRunnerV2):
        assert runner.load_lora_model is LoRAModelRunnerMixin.load_lora_model
        assert runner.remove_lora is LoRAModelRunnerMixin.remove_lora is not ORIGINAL_REMOVE


@pytest.mark.parametrize("worker", [CPUWorker, Worker])
def test_our_worker_calls_have_names_that_no_worker_has(worker: type[WorkerBase]) -> None:
    ours = [name for name in dir(LorryWorker) if not name.startswith("__")]
    assert ours
    assert [name for name in ours if hasattr(worker, name)] == []


def test_a_slot_is_filled_by_one_call_whatever_the_regions() -> None:
    slots, sources = [torch.zeros(4, 6), torch.zeros(3, 2)], [torch.ones(2, 6), torch.full((3, 1), 7.0)]
    torch._foreach_copy_([slots[0][:2, :6], slots[1][:3, :1]], sources, non_blocking=True)
    assert (slots[0].sum(), slots[1].sum()) == (12, 21)


def test_sequences_enter_and_leave_vllms_table_as_we_watch_it() -> None:
    source = inspect.getsource(OutputProcessor)
    assert source.count("self.request_states[request_id] = ") == 1
    assert source.count("self.request_states.pop(") == 2
    assert "del self.request_states" not in source
    assert source.count("self.request_states = ") == 0, "it is made once, as an annotated assignment"


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[tuple[SpinCondition, SpinCondition]]:
    """A writer's and a reader's end of one wake-up channel."""
    context, address = zmq.Context(), f"ipc://{tmp_path}/wake"
    writer = SpinCondition(is_reader=False, context=context, notify_address=address)
    reader = SpinCondition(is_reader=True, context=context, notify_address=address)
    time.sleep(1.0)  # subscribed by now
    yield writer, reader
    for condition in (writer, reader):
        for name in ("local_notify_socket", "read_cancel_socket", "write_cancel_socket"):
            if (channel := getattr(condition, name, None)) is not None:
                channel.close(linger=0)
    context.term()


def test_a_reader_between_two_steps_naps_rather_than_spins(ends: tuple[SpinCondition, SpinCondition]) -> None:
    _, reader = ends
    began, worked, naps = time.monotonic(), time.process_time(), list[float]()
    while len(naps) < 11 or time.monotonic() - began < 0.5:
        reader.last_read = time.monotonic() - 0.1
        lay_down = time.monotonic()
        doze.wait(reader, 5_000)
        naps.append(time.monotonic() - lay_down)
    seconds = time.monotonic() - began
    assert seconds < 11, "a nap ends by itself, long before the wait's end: a missed wake-up holds nobody up"
    assert min(naps) < 0.05
    assert len(naps) <= 1000 * seconds
    assert time.process_time() - worked < 0.8 * seconds


def test_a_reader_that_sleeps_hears_the_writer(ends: tuple[SpinCondition, SpinCondition]) -> None:
    writer, reader = ends
    for idle_seconds in (0.1, 60.0):
        reader.last_read = time.monotonic() - idle_seconds
        writer.notify()
        time.sleep(0.5)
        began = time.monotonic()
        doze.wait(reader, 10_000)
        assert time.monotonic() - began < 5
        assert not reader.local_notify_socket.poll(0), "what was heard is not heard again"


class _Runner:
    """As much of a model runner as the worker's refusal looks at; `batch` is how one of vLLM's two kinds tells."""

    def __init__(self, batch: str, *requests: LoRARequest) -> None:
        if batch == "input_batch":
            self.input_batch = SimpleNamespace(lora_id_to_lora_request={each.lora_int_id: each for each in requests})
        else:
            self.lora_state = LoraState(max_num_reqs=4)
            for number, request in enumerate(requests):
                self.lora_state.add_request(f"r{number}", number, request)


@pytest.mark.parametrize("batch", ["input_batch", "lora_state"])
def test_a_worker_refuses_to_take_out_what_is_in_its_batch_under_whatever_number(batch: str) -> None:
    worker = LorryWorker()
    worker.model_runner = _Runner(batch, LoRARequest("v1", 7, "/p"), LoRARequest("v2", 8, "/p"))
    for remove in (worker.lorry_drop, worker.lorry_erase):
        assert remove("v1") == {"removed": False, "reason": "scheduled"}
        with pytest.raises(AdapterNotLoaded, match="plugin"):  # it got past the refusal
            remove("v3")
    assert not _remove_lora(worker.model_runner, 8)


def _remove_lora(runner: Any, number: int) -> bool:
    runner._ensure_lora_enabled = lambda: None
    return worker_seam._remove_unless_scheduled(runner, number)


def test_a_cpu_runner_begins_its_steps_by_the_name_that_we_replace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GPUModelRunner, "_update_states", GPUModelRunner._update_states)
    seeds.make_seeds_rewindable()
    seeds.make_seeds_rewindable()
    assert CPUModelRunner._update_states is seeds.update_states
    assert "self._update_states(scheduler_output)" in inspect.getsource(GPUModelRunner.execute_model)
