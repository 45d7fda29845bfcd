"""The one file that leans on vLLM's scheduler: each of its steps gets the bounds that `serving.engine.pace` sets.

Stock vLLM's steps have as many tokens as ``--max-num-batched-tokens``, whoever waits. vLLM lets its scheduler be
replaced by a class of one's own (``--scheduler-cls``), but which class that would have to be a subclass of depends on
what else is configured, and neither is public. So the method that both inherit is wrapped, and what it reads is set for
the time of the call: the step's tokens; the order of running requests, which vLLM takes before any newcomer, live ones
first; and for a step in which batch prompts stand aside, the step from which those that have begun go on, by which vLLM
itself leaves out running requests, and the queue, without those that have not.

``tests/contract`` fails when that method is not what this file was written for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import Request, RequestStatus

from serving.engine.pace import Pace, Step, Work
from serving.engine.priority import is_live

_schedule = Scheduler.schedule
_CANNOT_BEGIN = (RequestStatus.WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR, RequestStatus.WAITING_FOR_STREAMING_REQ)


def install(pace: Pace) -> None:
    """Have every scheduler of this process keep `pace`; calling it again replaces the pace."""

    def schedule(scheduler: Scheduler, *args: Any, **kwargs: Any) -> SchedulerOutput:
        scheduler.running.sort(key=_behind)
        works = {request.request_id: _work(request) for request in (*scheduler.running, *scheduler.waiting)}
        step = pace.step(works.values(), most=scheduler.max_num_scheduled_tokens)
        with _bounded(scheduler, step):
            output = _schedule(scheduler, *args, **kwargs)
        computed = output.num_scheduled_tokens
        if not step.batch_prompts and not any(work.is_live_prompt for name, work in works.items() if name in computed):
            pace.stood_aside_in_vain()
        return output

    Scheduler.schedule = schedule


@contextmanager
def _bounded(scheduler: Scheduler, step: Step) -> Iterator[None]:
    most = scheduler.max_num_scheduled_tokens
    begun, late = [], []
    if not step.batch_prompts:
        begun = [(each, each.next_decode_eligible_step) for each in scheduler.running if _is_batch_prompt(each)]
        late = [each for each in scheduler.waiting if not is_live(each.priority)]
    scheduler.max_num_scheduled_tokens = step.tokens
    if late:  # or every step would build the queue anew
        scheduler.waiting.remove_requests(late)
    for request, _ in begun:
        request.next_decode_eligible_step = scheduler.current_step + 2  # the call begins the next one
    try:
        yield
    finally:
        scheduler.max_num_scheduled_tokens = most
        for request in late:
            scheduler.waiting.add_request(request)
        for request, eligible in begun:
            request.next_decode_eligible_step = eligible


def _work(request: Request) -> Work:
    waits = request.status in _CANNOT_BEGIN
    lacking = request.num_tokens_with_spec + request.num_output_placeholders - request.num_computed_tokens
    return Work(
        live=is_live(request.priority),
        answering=_is_answering(request),
        running=request.status == RequestStatus.RUNNING,
        tokens=0 if waits else lacking,
    )


def _is_answering(request: Request) -> bool:
    return bool(request.num_computed_tokens >= request.num_prompt_tokens)


def _is_batch_prompt(request: Request) -> bool:
    return not is_live(request.priority) and not _is_answering(request)


def _behind(request: Request) -> bool:
    return not is_live(request.priority)
