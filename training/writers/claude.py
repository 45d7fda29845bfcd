"""Claude as the question writer, through Message Batches: half the price, answers within a day, usually an hour.

    begin       one request at once, so that a wrong key, model or wording is noticed before anything is submitted
    prepared    → submitting: the intent is kept before the batch exists
    submitting  → running: a batch whose submission was cut short is looked for first, and adopted
    running     → prepared: what errored, expired or was answered badly is asked again, for a few rounds
                → written

What succeeded is never asked again. Answers are read from the service until `discard` has deleted them there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from training.errors import WriterUnavailable
from training.writers.claude_service import BatchView, ClaudeService, Result, SubmissionUncertain
from training.writers.cost import Cost
from training.writers.plan import Item, Plan
from training.writers.remote import SAMPLES, Desk, KeptAnswer, rough_tokens
from training.writers.state import ItemState, WriterState
from training.writers.wording import Wording, answer_schema, load_wording
from training.writers.writer import Written
from transcripts.transcript import Transcript

_TOKENS_BESIDE_PAIRS = 1024
_COUNTED_ITEMS = 8  # so many are counted by the service; the others are reckoned from them
# A machine's clock may be wrong; what others have submitted since is told by its size and ids.
_CLOCK_SKEW_SECONDS = 900.0
_FOR_GOOD = {"invalid_request_error", "permission_error", "authentication_error", "not_found_error", "billing_error"}


class ClaudeBatchWriter:
    """Writes pairs through Message Batches. `claimed` are the ids of batches known to be others' work."""

    remote = True

    def __init__(self, desk: Desk, *, claimed: Collection[str] = ()) -> None:
        self._desk = desk
        self._claimed = frozenset(claimed)

    @property
    def name(self) -> str:
        """``claude/<version of the wording>:<model>``."""
        return self._desk.name

    async def estimate(self, transcripts: Sequence[Transcript]) -> Cost:
        """Count the tokens of some requests at the service, reckon the others from them, and add the answers."""
        plan = self._desk.plan(transcripts)
        async with _Service(self._desk) as service:
            return await self._estimate(plan, service)

    async def begin(self, transcripts: Sequence[Transcript]) -> WriterState:
        """Check the estimate against the limit and have one request answered at once.

        One that is answered uselessly may be the transcript's fault, so up to three are tried.
        """
        plan = self._desk.plan(transcripts)
        state = self._desk.first_state(plan)
        if state.written:
            return state
        async with _Service(self._desk) as service:
            self._desk.require_affordable(await self._estimate(plan, service))
            for item in plan.items[:SAMPLES]:
                with self._desk.telling_spent(state):
                    state = await self._sample(state, item, service)
                if state.items[item.id].outcome == "done":
                    return state if state.named("open") else replace(state, phase="written")
        raise self._desk.no_useful_sample(state, plan)

    async def poll(self, state: WriterState, transcripts: Sequence[Transcript]) -> WriterState:
        """Take one step of the drawing above."""
        plan = self._desk.require(state, transcripts)
        async with _Service(self._desk) as service:
            match state.phase:
                case "prepared":
                    return replace(state, phase="submitting", intent_at=time.time(), wait_seconds=0.0)
                case "submitting":
                    return await self._submit(state, plan, service)
                case "running":
                    return await self._look(state, plan, service)
                case _:
                    return state

    async def collect(self, state: WriterState, transcripts: Sequence[Transcript]) -> Written:
        """Return what was written; answers that the spool lost are read from their batches again."""
        plan = self._desk.require(state, transcripts)
        async with _Service(self._desk) as service:
            reread = _Reread(service)
            return await self._desk.collect(state, plan, lost=reread)

    async def discard(self, state: WriterState) -> WriterState:
        """Cancel what runs, delete every batch that has ended, clear the spool."""
        await self._desk.spool.clear()
        async with _Service(self._desk) as service:
            if state.phase == "submitting":
                try:
                    found = await self._find_submitted(state, service)
                except _StillUnknown:
                    return replace(state, wait_seconds=self._desk.settings.writer_poll_seconds)
                if found is not None:
                    state = replace(state, batch=found.id, batches=(*state.batches, found.id))
            left = [batch for batch in state.batches if batch not in state.deleted]
            deleted = [batch for batch in left if await self._delete(batch, service)]
        gone = len(deleted) == len(left)
        return replace(
            state,
            phase="discarded" if gone else "discarding",
            deleted=(*state.deleted, *deleted),
            batch=None,
            wait_seconds=0.0 if gone else self._desk.settings.writer_poll_seconds,
        )

    async def _estimate(self, plan: Plan, service: ClaudeService) -> Cost:
        step = max(1, len(plan.items) // _COUNTED_ITEMS)
        counted = plan.items[::step][:_COUNTED_ITEMS]
        rough = {item.id: rough_tokens(_prompt(item)) for item in plan.items}
        counts = await asyncio.gather(*(service.count_tokens(_params(item, self._desk)) for item in counted))
        known = [(count, rough[item.id]) for item, count in zip(counted, counts, strict=True) if count is not None]
        scale = sum(count for count, _ in known) / sum(each for _, each in known) if known else 1.0
        prompt_tokens = round(sum(rough.values()) * scale)
        return self._desk.estimate(
            plan, prompt_tokens=prompt_tokens, batch=True, cache=self._desk.settings.writer_cache
        )

    async def _sample(self, state: WriterState, item: Item, service: ClaudeService) -> WriterState:
        answer = await self._desk.kept(item.id)  # bought by a process that was killed before it could say so
        if answer is None:
            answer = await service.ask(_params(item, self._desk))
            await self._desk.keep(item, answer)
        state = state.with_items({item.id: ItemState(outcome="asked", attempts=1)})
        return self._desk.settle(state, item, answer, batch=False)

    async def _submit(self, state: WriterState, plan: Plan, service: ClaudeService) -> WriterState:
        wanted = state.named("open")
        if not wanted:
            return replace(state, phase="written", intent_at=None)
        try:
            found = await self._find_submitted(state, service)
            if found is None:
                requests = [{"custom_id": name, "params": _params(plan.by_id[name], self._desk)} for name in wanted]
                found = await service.submit(requests)
        except (_StillUnknown, SubmissionUncertain):
            return replace(state, wait_seconds=self._desk.settings.writer_poll_seconds)
        asked = state.asked_in(found.id, wanted)
        return replace(
            asked,
            phase="running",
            batch=found.id,
            batches=(*state.batches, found.id),
            intent_at=None,
            wait_seconds=self._desk.settings.writer_poll_seconds,
        )

    async def _find_submitted(self, state: WriterState, service: ClaudeService) -> BatchView | None:
        """Return the batch that an earlier try of this very step submitted; None when there is none.

        The service lists a batch's time and size, but says whose requests it holds only once it has ended.

        Raises:
            _StillUnknown: a running batch may be the one.
        """
        intent = state.intent_at or time.time()
        listed = await service.batches_since(intent - _CLOCK_SKEW_SECONDS)
        known = {*state.batches, *self._claimed}
        size = len(state.named("open"))
        for view in listed:
            if view.id in known or view.requests != size:
                continue
            if view.status != "ended":
                raise _StillUnknown
            if await self._is_ours(view, state, service):
                return view
        return None

    async def _is_ours(self, view: BatchView, state: WriterState, service: ClaudeService) -> bool:
        async for result in service.results(view.id):
            if result is not None:
                return result.item_id in state.items
        return False

    async def _look(self, state: WriterState, plan: Plan, service: ClaudeService) -> WriterState:
        assert state.batch is not None
        view = await service.batch(state.batch)
        if view is not None and view.status != "ended":
            return replace(state, wait_seconds=self._desk.settings.writer_poll_seconds)
        if view is None:  # somebody deleted it, with whatever it had answered
            state = self._reopen_asked(state, "batch_deleted")
        else:
            state = await self._settle_batch(state, plan, view, service)
        again = bool(state.named("open"))
        return replace(state, phase="prepared" if again else "written", batch=None, wait_seconds=0.0)

    async def _settle_batch(
        self, state: WriterState, plan: Plan, view: BatchView, service: ClaudeService
    ) -> WriterState:
        lines = 0
        async for result in service.results(view.id):
            lines += 1
            if result is not None and state.items.get(result.item_id, ItemState()).outcome == "asked":
                state = await self._settle(state, plan.by_id[result.item_id], result)
        if lines < view.requests:
            raise WriterUnavailable(f"the results of a batch have {lines} lines of {view.requests}: they were cut off")
        return self._reopen_asked(state, "damaged_result")

    async def _settle(self, state: WriterState, item: Item, result: Result) -> WriterState:
        if result.kind == "succeeded" and result.answer is not None:
            await self._desk.keep(item, result.answer)
            return self._desk.settle(state, item, result.answer, batch=True)
        if result.kind == "canceled":  # somebody wanted it to stop
            return self._desk.give_up(state, item.id, "canceled")
        reason = result.error or result.kind
        if reason in _FOR_GOOD:
            return self._desk.give_up(state, item.id, reason)
        return self._desk.reopen(state, item.id, reason)

    def _reopen_asked(self, state: WriterState, reason: str) -> WriterState:
        for name in state.named("asked"):
            state = self._desk.reopen(state, name, reason)
        return state

    async def _delete(self, batch_id: str, service: ClaudeService) -> bool:
        """Return whether the batch is gone."""
        view = await service.batch(batch_id)
        if view is None:
            return True
        if view.status == "in_progress":
            await service.cancel(batch_id)
            view = await service.batch(batch_id)
        if view is not None and view.status != "ended":
            return False
        await service.delete(batch_id)
        return True


class _StillUnknown(Exception):
    """A batch that may be ours has not ended."""


class _Reread:
    """Answers out of batches that the service still keeps; each batch is read once."""

    def __init__(self, service: ClaudeService) -> None:
        self._service = service
        self._read: dict[str, dict[str, KeptAnswer]] = {}

    async def __call__(self, item_id: str, state: ItemState) -> KeptAnswer | None:
        if state.batch is None:
            return None
        if state.batch not in self._read:
            self._read[state.batch] = await self._answers(state.batch)
        return self._read[state.batch].get(item_id)

    async def _answers(self, batch_id: str) -> dict[str, KeptAnswer]:
        if await self._service.batch(batch_id) is None:
            return {}
        results = [result async for result in self._service.results(batch_id)]
        return {result.item_id: result.answer for result in results if result is not None and result.answer}


class _Service:
    """The service inside the block."""

    def __init__(self, desk: Desk) -> None:
        self._service = ClaudeService(desk.settings)

    async def __aenter__(self) -> ClaudeService:
        return self._service

    async def __aexit__(self, *_: object) -> None:
        await self._service.close()


def _params(item: Item, desk: Desk) -> dict[str, Any]:
    """Return the body of one request: what both requests about a chunk share is cached."""
    wording = load_wording()
    shared: dict[str, Any] = {"type": "text", "text": wording.shared(item)}
    if desk.settings.writer_cache != "off":
        shared["cache_control"] = {"type": "ephemeral", "ttl": desk.settings.writer_cache}
    output: dict[str, Any] = {"format": {"type": "json_schema", "schema": answer_schema()}}
    if desk.settings.writer_effort is not None:
        output["effort"] = desk.settings.writer_effort
    return {
        "model": desk.model,
        "max_tokens": item.pairs * 2 * desk.settings.writer_tokens_each + _TOKENS_BESIDE_PAIRS,
        "system": [{"type": "text", "text": wording.system}],
        "messages": [
            {
                "role": "user",
                "content": [
                    shared,
                    {"type": "text", "text": wording.task(item)},
                ],
            }
        ],
        "output_config": output,
    }


def _prompt(item: Item) -> str:
    wording: Wording = load_wording()
    return wording.system + wording.shared(item) + wording.task(item)
