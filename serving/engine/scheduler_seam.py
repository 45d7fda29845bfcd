"""The one file that leans on vLLM's scheduler: each of its steps gets the bounds that `serving.engine.pace` sets.

Stock vLLM's steps have as many tokens as ``--max-num-batched-tokens``, whoever waits. vLLM lets its scheduler be
replaced by a class of one's own (``--scheduler-cls``), but which class that would have to be a subclass of depends on
what else is configured, and neither is public. So the method that both inherit is wrapped, and three of the values that
it reads are set for the time of the call: the step's tokens; how many requests may run; and the list of those that do,
which vLLM takes in the order of their admission before any newcomer. Live ones come first in it, and who stands aside
is not in it: to vLLM that is a running request that a step had nothing for.

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
    before = scheduler.max_num_scheduled_tokens, scheduler.max_num_active_reqs
    aside: list[Request] = []
    scheduler.max_num_scheduled_tokens = step.tokens
    if not step.batch_prompts:
        aside = [request for request in scheduler.running if _is_batch_prompt(request)]
        scheduler.running[:] = [request for request in scheduler.running if not _is_batch_prompt(request)]
        newcomers = sum(is_live(request.priority) for request in scheduler.waiting)
        scheduler.max_num_active_reqs = min(before[1] - len(aside), len(scheduler.running) + newcomers)
    try:
        yield
    finally:
        scheduler.max_num_scheduled_tokens, scheduler.max_num_active_reqs = before
        scheduler.running.extend(aside)


def _works(scheduler: Scheduler) -> Iterator[Work]:
    for request in (*scheduler.running, *scheduler.waiting):
        lacking = request.num_tokens_with_spec + request.num_output_placeholders - request.num_computed_tokens
        yield Work(live=is_live(request.priority), answering=_is_answering(request), tokens=lacking)


def _is_answering(request: Request) -> bool:
    return bool(request.num_computed_tokens >= request.num_prompt_tokens)


def _is_batch_prompt(request: Request) -> bool:
    return not is_live(request.priority) and not _is_answering(request)


def _behind(request: Request) -> bool:
    return not is_live(request.priority)
