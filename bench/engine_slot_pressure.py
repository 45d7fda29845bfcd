"""Batch work over more adapters than slots, its requests arriving interleaved: what is left of the throughput.

Every scenario is the same number of requests of the same size, sent at once, one adapter after the other in turn: first
of as many adapters as batch work can have slots, so that all fit, then of twice and eight times the slots. Stock vLLM
gets the same requests, host memory for all adapters at once, and its adapters on its local disk.

A pass ends with seats that nobody is left to take, and how many that are differs from scenario to scenario: of 192
requests, over 32 adapters rather than 3, it was one more round of seats beside fourteen. So there are 576.

In a round before the first no engine has the adapters yet, and ours loads from the registry and S3.
"""

from __future__ import annotations

import time
from pathlib import Path

from bench.engines import Engines, Side, open_engines, tell
from bench.load import Ask, Caller, burst, require_answers
from bench.report import Measure, compare, report, rounds_or

_SLOTS, _SEATS = 4, 16
_FACTORS = (2, 8)
_WIDEST = f"{_FACTORS[-1]}× the slots"
_PROMPT_TOKENS, _ANSWER_TOKENS = 32, 16
_FIT_TARGET, _STOCK_TARGET = 0.9, 1.5
Rates = dict[str, dict[str, list[float]]]


async def run(*, quick: bool) -> Path:
    """Measure and write the report."""
    rounds, requests = (1, 64) if quick else (rounds_or(1), 576)
    most = _SLOTS * max(_FACTORS)
    engine = {"max_loras": _SLOTS, "max_cpu_loras": 2 * most, "max_num_seqs": _SEATS, "max_model_len": 512}
    async with open_engines(engine=engine) as engines:
        models = await engines.shelf.add(most)
        slots_of_batch = _SLOTS - 1  # the last is never batch work's
        scenarios = {"all fit": slots_of_batch, **{f"{factor}× the slots": factor * _SLOTS for factor in _FACTORS}}
        cold: Rates = {name: {_WIDEST: []} for name in engines.sides}
        warm: Rates = {name: {scenario: [] for scenario in scenarios} for name in engines.sides}
        for number in range(rounds + 1):
            rates = warm if number else cold
            for side in engines.turns(number):
                for scenario in rates[side.name]:
                    asked = models[: scenarios[scenario]]
                    rate = await _pass(engines, side, asked, requests=requests, seed=number * 10_000)
                    tell(f"round {number}, {side.name}, {scenario}: {rate:.1f} tokens/s")
                    rates[side.name][scenario].append(rate)
    measures = [measure for side in engines.ours for measure in _measures(side.name, warm, cold)]
    measures.append(
        compare(
            f"stock: tokens/s at {_WIDEST} ÷ when all fit",
            unit="tokens/s",
            ours=warm["stock"][_WIDEST],
            peer=warm["stock"]["all fit"],
            better="higher",
        )
    )
    return report("engine_slot_pressure", measures, peer="all fit; stock vLLM", quick=quick)


async def _pass(engines: Engines, side: Side, models: list[str], *, requests: int, seed: int) -> float:
    """Return the answers' tokens a second, from the first request sent to the last answer."""
    asks = [
        Ask(
            model=models[number % len(models)],
            prompt_tokens=_PROMPT_TOKENS,
            answer_tokens=_ANSWER_TOKENS,
            seed=seed + number,
            kind="batch",
        )
        for number in range(requests)
    ]
    async with engines.only(side), Caller(side) as caller:
        began = time.perf_counter()
        answers = await burst(caller, asks)
        seconds = time.perf_counter() - began
    require_answers(answers)
    return requests * _ANSWER_TOKENS / seconds


def _measures(name: str, warm: Rates, cold: Rates) -> list[Measure]:
    found = []
    for factor in _FACTORS:
        scenario = f"{factor}× the slots"
        rates, stock = warm[name][scenario], warm["stock"][scenario]
        for what, peer, target in (
            ("÷ when all fit", warm[name]["all fit"], _FIT_TARGET),
            ("÷ stock", stock, _STOCK_TARGET),
        ):
            found.append(
                compare(
                    f"{name}: {scenario}, {what}",
                    unit="tokens/s",
                    ours=rates,
                    peer=peer,
                    target=target,
                    better="higher",
                )
            )
    found.append(
        compare(
            f"{name}: {_WIDEST}, adapters still in S3 ÷ stock, on its disk",
            unit="tokens/s",
            ours=cold[name][_WIDEST],
            peer=cold["stock"][_WIDEST],
            better="higher",
        )
    )
    return found
