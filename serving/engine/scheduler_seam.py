"""The one file that leans on vLLM's scheduler: each of its steps gets the bounds that `serving.engine.pace` sets.

Stock vLLM's steps have as many tokens as ``--max-num-batched-tokens``, whoever waits. vLLM lets its scheduler be
replaced by a class of one's own (``--scheduler-cls``), but which class that would have to be a subclass of depends on
what else is configured, and neither is public. So the method that both inherit is wrapped, and three of the values that
it reads are set for the time of the call: the step's tokens, the tokens of one request, and, because vLLM takes running
requests in the order of their admission, that order, live ones first.

``tests/contract`` fails when that method is not what this file was written for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import Request

from serving.engine.pace import Pace, Step, Work
from serving.engine.priority import is_live

_schedule = Scheduler.schedule


def install(pace: Pace) -> None:
    """Have every scheduler of this process keep `pace`; calling it again replaces the pace."""

    def schedule(scheduler: Scheduler, *args: Any, **kwargs: Any) -> SchedulerOutput:
        scheduler.running.sort(key=_behind)
        with _bounded(scheduler, pace.step(_works(scheduler), most=scheduler.max_num_scheduled_tokens)):
            return _schedule(scheduler, *args, **kwargs)

    Scheduler.schedule = schedule


@contextmanager
def _bounded(scheduler: Scheduler, step: Step) -> Iterator[None]:
    config = scheduler.scheduler_config
    before = scheduler.max_num_scheduled_tokens, config.long_prefill_token_threshold
    scheduler.max_num_scheduled_tokens = step.tokens
    if step.tokens_each is not None:
        config.long_prefill_token_threshold = step.tokens_each
    try:
        yield
    finally:
        scheduler.max_num_scheduled_tokens, config.long_prefill_token_threshold = before


def _works(scheduler: Scheduler) -> Iterator[Work]:
    for request in scheduler.running:
        yield _work(request, running=True)
    for request in scheduler.waiting:
        yield _work(request, running=False)


def _work(request: Request, *, running: bool) -> Work:
    lacking = request.num_tokens_with_spec + request.num_output_placeholders - request.num_computed_tokens
    return Work(
        live=is_live(request.priority),
        answering=running and request.num_computed_tokens >= request.num_prompt_tokens,
        running=running,
        tokens=lacking,
    )


def _behind(request: Request) -> bool:
    return not is_live(request.priority)
