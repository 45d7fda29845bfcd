"""Live requests while batch work saturates the engine: how long they wait, and what they cost the batch.

Three phases on each engine, one after the other: live requests alone, batch alone, both. Live requests come from as
many callers as slots are kept for them, each time of another user's adapter, with pauses. A step is what the running
sequences wait between two tokens while the batch is alone.

Slot waits come from our ``/metrics``: the edge of the bucket that holds the quantile, never less than it.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench.engines import Engines, Side, open_engines, tell
from bench.load import Answer, Ask, Caller, at_quantile, keep_up, require_answers
from bench.report import Measure, compare, report, rounds_or

_SLOTS, _LIVE_SLOTS = 8, 2
_SEATS, _LIVE_SEATS = 16, 2
_CALLERS_A_SEAT = 4  # so that an adapter's slot never runs dry while others wait for one
_BATCH_ADAPTERS, _LIVE_ADAPTERS = 16, 8
_BATCH_PROMPT_TOKENS, _BATCH_ANSWER_TOKENS = 64, 32
_LIVE_PROMPT_TOKENS, _LIVE_ANSWER_TOKENS = 32, 4
_PAUSE_SECONDS = 2.0
_WARM_SECONDS = 5.0
_WAIT_TARGET, _FIRST_TOKEN_TARGET, _BATCH_TARGET = 1.0, 2.0, 0.85
_STEP = "vllm:inter_token_latency_seconds"
_WAIT = "lorry_slot_wait_seconds"
_TOKENS = "vllm:generation_tokens_total"


@dataclass(kw_only=True)
class Found:
    """What one engine showed, one figure a round; first tokens in ms of p50 and p99."""

    alone: list[float] = field(default_factory=list)
    step: list[float] = field(default_factory=list)
    wait: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    first_p50: list[float] = field(default_factory=list)
    batch_alone: list[float] = field(default_factory=list)
    batch_beside: list[float] = field(default_factory=list)

    @property
    def floor(self) -> list[float]:
        """Alone, and one step."""
        return [alone + step for alone, step in zip(self.alone, self.step, strict=True)]


async def run(*, quick: bool) -> Path:
    """Measure and write the report."""
    rounds, seconds = (1, 15.0) if quick else (rounds_or(3), 120.0)
    engine = {"max_loras": _SLOTS, "max_cpu_loras": 64, "max_num_seqs": _SEATS, "max_model_len": 512}
    ours = {"live_slots": _LIVE_SLOTS, "live_seats": _LIVE_SEATS}
    async with open_engines(engine=engine, ours=ours) as engines:
        models = await engines.shelf.add(_BATCH_ADAPTERS + _LIVE_ADAPTERS)
        found = {name: Found() for name in engines.sides}
        for number in range(rounds):
            for side in engines.turns(number):
                await _phases(engines, side, models, found[side.name], seconds=seconds, seed=number * 1_000_000)
    measures = [measure for side in engines.ours for measure in _measures(side.name, found[side.name], found["stock"])]
    measures += _beside(found["stock"])
    return report("engine_live_under_batch", measures, peer="alone + one step; stock vLLM", quick=quick)


async def _phases(engines: Engines, side: Side, models: list[str], found: Found, *, seconds: float, seed: int) -> None:
    live, batch = models[:_LIVE_ADAPTERS], models[_LIVE_ADAPTERS:]
    async with engines.only(side), Caller(side) as caller:
        tell(f"{side.name}: loading")
        await _resident(caller, models, seed=seed)
        tell(f"{side.name}: live alone")
        alone = await _live(caller, live, seconds=seconds / 2, seed=seed + 100_000)
        found.alone.append(at_quantile([answer.first_token_seconds for answer in alone], 0.5) * 1000)
        async with _Batch(caller, batch, seed=seed + 200_000):
            tell(f"{side.name}: batch alone")
            before, began = await side.read_metrics(), time.perf_counter()
            await asyncio.sleep(seconds / 2)
            after, took = await side.read_metrics(), time.perf_counter() - began
            found.step.append(after.histogram_since(before, _STEP).mean * 1000)
            found.batch_alone.append((after.value(_TOKENS) - before.value(_TOKENS)) / took)
            tell(f"{side.name}: both")
            before, began = await side.read_metrics(), time.perf_counter()
            beside = await _live(caller, live, seconds=seconds, seed=seed + 300_000)
            after, took = await side.read_metrics(), time.perf_counter() - began
    tokens = after.value(_TOKENS) - before.value(_TOKENS) - _LIVE_ANSWER_TOKENS * len(beside)
    found.batch_beside.append(tokens / took)
    first = [answer.first_token_seconds for answer in beside]
    found.first.append(at_quantile(first, 0.99) * 1000)
    found.first_p50.append(at_quantile(first, 0.5) * 1000)
    if side.is_ours:
        found.wait.append(after.histogram_since(before, _WAIT, **{"class": "live"}).at_most(0.99) * 1000)


async def _resident(caller: Caller, models: list[str], *, seed: int) -> None:
    """Have every adapter in host memory: loading is measured elsewhere."""
    asks = (
        Ask(model=model, prompt_tokens=4, answer_tokens=1, seed=seed + number, kind="batch")
        for number, model in enumerate(models)
    )
    require_answers(await keep_up(caller, callers=4, next_ask=lambda: next(asks, None)))


async def _live(caller: Caller, models: list[str], *, seconds: float, seed: int) -> list[Answer]:
    """Ask for `seconds`, from as many callers as slots are kept for live requests; each pauses after an answer."""
    deadline, numbers, chosen = time.perf_counter() + seconds, itertools.count(seed), random.Random(seed)
    answers: list[Answer] = []

    async def person(own: list[str]) -> None:
        await asyncio.sleep(chosen.uniform(0, _PAUSE_SECONDS))
        while time.perf_counter() < deadline:
            ask = Ask(
                model=chosen.choice(own),
                prompt_tokens=_LIVE_PROMPT_TOKENS,
                answer_tokens=_LIVE_ANSWER_TOKENS,
                seed=next(numbers),
            )
            answers.append(await caller.ask(ask, stream=True))
            await asyncio.sleep(chosen.uniform(0, _PAUSE_SECONDS))

    await asyncio.gather(*(person(models[number::_LIVE_SLOTS]) for number in range(_LIVE_SLOTS)))
    require_answers(answers)
    return answers


class _Batch:
    """Batch work that never runs dry while the block runs, every request of the next adapter; given up at its end."""

    def __init__(self, caller: Caller, models: list[str], *, seed: int) -> None:
        self._caller = caller
        self._models = models
        self._numbers = itertools.count(seed)
        self._answers: list[Answer] = []

    async def __aenter__(self) -> None:
        callers = _CALLERS_A_SEAT * _SEATS
        working = keep_up(self._caller, callers=callers, next_ask=self._next, into=self._answers)
        self._task = asyncio.create_task(working)
        await asyncio.sleep(_WARM_SECONDS)

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        require_answers(self._answers)

    def _next(self) -> Ask:
        number = next(self._numbers)
        return Ask(
            model=self._models[number % len(self._models)],
            prompt_tokens=_BATCH_PROMPT_TOKENS,
            answer_tokens=_BATCH_ANSWER_TOKENS,
            seed=number,
            kind="batch",
        )


def _measures(name: str, found: Found, stock: Found) -> list[Measure]:
    return [
        compare(f"{name}: p99 slot wait ÷ one step", unit="ms", ours=found.wait, peer=found.step, target=_WAIT_TARGET),
        compare(
            f"{name}: p99 first token ÷ (alone + one step)",
            unit="ms",
            ours=found.first,
            peer=found.floor,
            target=_FIRST_TOKEN_TARGET,
        ),
        compare(f"{name}: p50 first token ÷ (alone + one step)", unit="ms", ours=found.first_p50, peer=found.floor),
        compare(f"{name}: p99 first token ÷ stock's", unit="ms", ours=found.first, peer=stock.first),
        compare(
            f"{name}: batch beside live ÷ batch alone",
            unit="tokens/s",
            ours=found.batch_beside,
            peer=found.batch_alone,
            target=_BATCH_TARGET,
            better="higher",
        ),
    ]


def _beside(stock: Found) -> list[Measure]:
    """Return the same of stock vLLM, which promises nothing."""
    return [
        compare("stock: p99 first token ÷ (alone + one step)", unit="ms", ours=stock.first, peer=stock.floor),
        compare(
            "stock: batch beside live ÷ batch alone",
            unit="tokens/s",
            ours=stock.batch_beside,
            peer=stock.batch_alone,
            better="higher",
        ),
    ]
