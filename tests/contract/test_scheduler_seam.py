"""What `serving.engine.scheduler_seam` makes of vLLM's own scheduler, with requests of its own kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import pytest
import torch
from vllm.config import CacheConfig, DeviceConfig, ModelConfig, SchedulerConfig, VllmConfig
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus
from vllm.v1.structured_output import StructuredOutputManager

from serving.engine import scheduler_seam
from serving.engine.pace import MOST_STEPS_ASIDE, Pace

MOST, BATCH_PROMPTS, BLOCK, SEATS = 256, 64, 16, 16
CACHED = 144  # of a prompt of 160 seen before, all whole blocks but the last, which answers
LIVE, BATCH = 2000, 2001


@pytest.fixture(params=[False, True], ids=["", "async"])
def is_async(request: pytest.FixtureRequest) -> bool:
    """Whether vLLM plans a step while the one before is computed, as it does on CUDA."""
    return bool(request.param)


Make = Callable[..., Scheduler]


@pytest.fixture
def make_scheduler(base_directory: Path, monkeypatch: pytest.MonkeyPatch, is_async: bool) -> Make:
    monkeypatch.setattr(Scheduler, "schedule", Scheduler.schedule)
    scheduler_seam.install(Pace(batch_prompt_tokens=BATCH_PROMPTS))
    scheduler_seam.install(Pace(batch_prompt_tokens=BATCH_PROMPTS))
    init_none_hash(sha256)

    def make(*, blocks: int = 1000) -> Scheduler:
        """Return one of vLLM's own schedulers with memory for so many blocks of 16 tokens."""
        config = VllmConfig(
            model_config=ModelConfig(model=str(base_directory), dtype="float32", max_model_len=2048),
            scheduler_config=SchedulerConfig(
                max_num_batched_tokens=MOST,
                max_num_seqs=SEATS,
                max_model_len=2048,
                policy="priority",
                is_encoder_decoder=False,
                async_scheduling=is_async,
            ),
            cache_config=CacheConfig(block_size=BLOCK, enable_prefix_caching=True),
            device_config=DeviceConfig("cpu"),
        )
        spec = FullAttentionSpec(block_size=BLOCK, num_kv_heads=1, head_size=1, dtype=torch.float32)
        config.cache_config.num_gpu_blocks = blocks + 1  # vLLM keeps one for itself
        kind = AsyncScheduler if is_async else Scheduler
        return kind(
            vllm_config=config,
            kv_cache_config=KVCacheConfig(
                num_blocks=blocks + 1, kv_cache_tensors=[], kv_cache_groups=[KVCacheGroupSpec(["layer"], spec)]
            ),
            structured_output_manager=StructuredOutputManager(config),
            block_size=BLOCK,
        )

    return make


@pytest.fixture
def scheduler(make_scheduler: Make) -> Scheduler:
    return make_scheduler()


def ask(scheduler: Scheduler, name: str, *, tokens: int, priority: int, says: str = "") -> None:
    """Have `name` wait with a prompt of one word over and over, its own unless it `says` another's."""
    parameters = SamplingParams(max_tokens=8, ignore_eos=True)
    word = crc32((says or name).encode()) % 40_000
    scheduler.add_request(
        Request(
            request_id=name,
            prompt_token_ids=[word] * tokens,
            sampling_params=parameters,
            pooling_params=None,
            priority=priority,
            block_hasher=get_request_block_hasher(BLOCK, sha256),
        )
    )


def computed(scheduler: Scheduler) -> dict[str, int]:
    """Have the next step planned and computed; return whose tokens it had."""
    output: SchedulerOutput = scheduler.schedule()
    names = list(output.num_scheduled_tokens)
    ended = [not scheduler.requests[name].is_prefill_chunk for name in names]
    result = ModelRunnerOutput(
        req_ids=names,
        req_id_to_index={name: index for index, name in enumerate(names)},
        sampled_token_ids=[[7] if answers else [] for answers in ended],
    )
    scheduler.update_from_output(output, result)
    return dict(output.num_scheduled_tokens)


def test_both_of_vllms_schedulers_have_the_method_that_is_wrapped() -> None:
    assert "schedule" not in vars(AsyncScheduler)
    assert issubclass(AsyncScheduler, Scheduler)


def test_batch_prompts_fill_steps_until_a_live_request_is_there(scheduler: Scheduler) -> None:
    for number in range(8):
        ask(scheduler, f"batch-{number}", tokens=64, priority=BATCH + 2 * number)
    assert computed(scheduler) == {f"batch-{number}": 64 for number in range(4)}

    ask(scheduler, "live", tokens=32, priority=LIVE)
    assert computed(scheduler) == {**{f"batch-{number}": 1 for number in range(4)}, "live": 32}
    assert computed(scheduler) == {**{f"batch-{number}": 1 for number in range(4)}, "live": 1, "batch-4": 64}
    assert scheduler.max_num_scheduled_tokens == MOST
    assert [request.request_id for request in scheduler.waiting] == ["batch-5", "batch-6", "batch-7"]


def test_a_batch_prompt_that_has_begun_stands_aside_and_goes_on_where_it_was(scheduler: Scheduler) -> None:
    ask(scheduler, "batch", tokens=1500, priority=BATCH)
    ask(scheduler, "later", tokens=10, priority=BATCH + 2)
    assert computed(scheduler) == {"batch": MOST}

    ask(scheduler, "live", tokens=300, priority=LIVE)
    assert computed(scheduler) == {"live": MOST}
    assert computed(scheduler) == {"live": 300 - MOST}
    assert {request.request_id for request in scheduler.running} == {"live", "batch"}
    assert computed(scheduler) == {"live": 1, "batch": BATCH_PROMPTS}
    assert scheduler.requests["batch"].num_computed_tokens == MOST + BATCH_PROMPTS


def test_no_batch_prompt_takes_what_the_cache_spares_a_live_one(scheduler: Scheduler) -> None:
    """vLLM learns what it has of a prompt only when it admits it, and gives the rest of the step to the next."""
    ask(scheduler, "before", tokens=160, priority=LIVE)
    assert computed(scheduler) == {"before": 160}
    ask(scheduler, "live", tokens=160, priority=LIVE, says="before")
    ask(scheduler, "batch", tokens=160, priority=BATCH)
    assert computed(scheduler) == {"before": 1, "live": 160 - CACHED}


def test_requests_that_stand_aside_keep_their_seats(scheduler: Scheduler) -> None:
    for number in range(SEATS - 1):
        ask(scheduler, f"batch-{number}", tokens=20, priority=BATCH + 2 * number)
    computed(scheduler)
    assert len(scheduler.running) == 13  # twelve of 20 tokens, and 16 of the next
    for number in range(SEATS):
        ask(scheduler, f"live-{number}", tokens=2, priority=LIVE + 2 * number)
    computed(scheduler)
    assert len(scheduler.running) == SEATS
    assert "batch-12" in {request.request_id for request in scheduler.running}


def test_batch_requests_that_waited_longer_stand_aside_as_well(scheduler: Scheduler) -> None:
    """They come before live ones in vLLM's queue once they have waited for five seconds longer."""
    ask(scheduler, "batch", tokens=500, priority=LIVE - 1001)
    ask(scheduler, "live", tokens=32, priority=LIVE)
    assert computed(scheduler) == {"live": 32}
    assert computed(scheduler) == {"live": 1, "batch": BATCH_PROMPTS}


def test_batch_prompts_go_on_while_a_live_one_cannot_begin(scheduler: Scheduler) -> None:
    ask(scheduler, "batch", tokens=1500, priority=BATCH)
    assert computed(scheduler) == {"batch": MOST}
    ask(scheduler, "live", tokens=32, priority=LIVE)
    scheduler.requests["live"].status = RequestStatus.WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR
    assert computed(scheduler) == {"batch": BATCH_PROMPTS}
    assert computed(scheduler) == {"batch": BATCH_PROMPTS}


def test_whoever_stands_aside_gives_up_memory_before_a_live_one_does(make_scheduler: Make) -> None:
    scheduler = make_scheduler(blocks=20)
    ask(scheduler, "batch", tokens=320, priority=BATCH)
    assert computed(scheduler) == {"batch": MOST}
    ask(scheduler, "live", tokens=4 * BLOCK, priority=LIVE)
    assert computed(scheduler) == {"live": 4 * BLOCK}
    ask(scheduler, "newcomer", tokens=16, priority=LIVE)
    assert computed(scheduler) == {"live": 1}
    assert scheduler.requests["batch"].status == RequestStatus.PREEMPTED
    assert computed(scheduler) == {"live": 1, "newcomer": 16}


def test_nobody_stands_aside_again_for_whom_there_is_no_memory(make_scheduler: Make) -> None:
    scheduler = make_scheduler(blocks=20)
    ask(scheduler, "batch", tokens=320, priority=BATCH)
    assert computed(scheduler) == {"batch": MOST}
    ask(scheduler, "live", tokens=160, priority=LIVE)
    assert computed(scheduler) == {}
    assert computed(scheduler) == {"batch": 320 - MOST}


def test_in_the_fifth_step_batch_prompts_have_what_they_always_have(scheduler: Scheduler) -> None:
    ask(scheduler, "batch", tokens=1500, priority=BATCH)
    assert computed(scheduler) == {"batch": MOST}
    for number in range(MOST_STEPS_ASIDE):
        ask(scheduler, f"live-{number}", tokens=20, priority=LIVE + 2 * number)
        assert computed(scheduler)[f"live-{number}"] == 20
    ask(scheduler, "newcomer", tokens=150, priority=LIVE + 100)
    answering = {f"live-{number}": 1 for number in range(MOST_STEPS_ASIDE)}
    assert computed(scheduler) == {**answering, "batch": BATCH_PROMPTS}
    assert computed(scheduler) == {**answering, "newcomer": 150}


def test_a_live_prompt_alone_is_computed_as_fast_as_ever(scheduler: Scheduler) -> None:
    ask(scheduler, "live", tokens=600, priority=LIVE)
    assert [computed(scheduler) for _ in range(4)] == [{"live": 256}, {"live": 256}, {"live": 88}, {"live": 1}]
