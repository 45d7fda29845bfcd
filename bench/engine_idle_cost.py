"""What the pool costs a request that needs nothing of it: one adapter, long resident, one request at a time.

Ours and stock vLLM answer the same requests in turn, a block each, while the others stand still. Guard, door, admission
and lease are all on the way of ours.
"""

from __future__ import annotations

import statistics
from pathlib import Path

from bench.engines import Engines, Side, open_engines
from bench.load import Ask, Caller, require_answers
from bench.report import compare, report, rounds_or

_TARGET = 1.03
_PROMPT_TOKENS, _ANSWER_TOKENS = 32, 16
_WARM_UP = 3


async def run(*, quick: bool) -> Path:
    """Measure and write the report."""
    rounds, requests = (2, 5) if quick else (rounds_or(10), 20)
    async with open_engines() as engines:
        (model,) = await engines.shelf.add(1)
        seconds: dict[str, list[float]] = {name: [] for name in engines.sides}
        for number in range(rounds + 1):
            for side in engines.turns(number):
                took = await _block(engines, side, model, requests=requests, seed=number * 1_000)
                if number:  # the first round warms up
                    seconds[side.name].append(statistics.median(took) * 1000)
    measures = [
        compare(
            f"p50 of a request, one adapter resident: {side.name}",
            unit="ms",
            ours=seconds[side.name],
            peer=seconds["stock"],
            target=_TARGET,
        )
        for side in engines.ours
    ]
    return report("engine_idle_cost", measures, peer="stock vLLM, filesystem resolver", quick=quick)


async def _block(engines: Engines, side: Side, model: str, *, requests: int, seed: int) -> list[float]:
    async with engines.only(side), Caller(side) as caller:
        answers = [
            await caller.ask(
                Ask(model=model, prompt_tokens=_PROMPT_TOKENS, answer_tokens=_ANSWER_TOKENS, seed=seed + number)
            )
            for number in range(_WARM_UP + requests)
        ]
    require_answers(answers)
    return [answer.seconds for answer in answers[_WARM_UP:]]
