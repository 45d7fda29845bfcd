"""Tokens a second of sixteen requests for the base, one adapter and four, on a CPU engine: ours beside stock vLLM.

A third engine is ours with vLLM's own product (``LORRY_CPU_PRODUCT=stock``): what is between it and stock vLLM does not
come from the product. Every round asks each engine in turn the same requests, the others standing still.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from bench.engines import Engines, open_engines
from bench.load import Ask, Caller, burst, require_answers
from bench.report import Measure, compare, report, rounds_or

_REQUESTS = 16
_ADAPTERS = 4
_PROMPT_TOKENS = 32
_LONG_PROMPTS = 4  # a step of stock vLLM with more of them takes half a minute
_LONG_PROMPT_TOKENS = 256
_WARM_UP_TOKENS = 4
_BASE = "base"
_ONE, _FOUR = f"{_REQUESTS} requests, 1 adapter", f"{_REQUESTS} requests, 4 adapters"
Speeds = dict[tuple[str, str], list[float]]
"""Tokens a second of every round, by engine and load."""


async def run(*, quick: bool) -> Path:
    """Run the benchmark and write its report."""
    limits = {"max_loras": _ADAPTERS, "max_cpu_loras": 2 * _ADAPTERS, "max_num_seqs": _REQUESTS, "kv_cache_gib": 1}
    async with open_engines(engine=limits) as engines:
        adapters = await engines.shelf.add(_ADAPTERS)
        speeds = await _measure(
            engines, adapters, rounds=1 if quick else rounds_or(6), answer_tokens=16 if quick else 64
        )
    return report("engine_cpu_product", _measures(speeds), peer="stock vLLM, filesystem resolver", quick=quick)


async def _measure(engines: Engines, adapters: Sequence[str], *, rounds: int, answer_tokens: int) -> Speeds:
    speeds: Speeds = {}
    for number in range(rounds + 1):
        for side in engines.turns(number):
            async with engines.only(side), Caller(side) as caller:
                tokens = answer_tokens if number else _WARM_UP_TOKENS
                for load, asks in _loads(adapters, number, tokens).items():
                    speed = await _speed(caller, asks)
                    if number:  # the first round loads the adapters, and warms the servers up
                        speeds.setdefault((side.name, load), []).append(speed)
    return speeds


def _loads(adapters: Sequence[str], number: int, answer_tokens: int) -> dict[str, list[Ask]]:
    """Return the requests of a round, by load; equal for every engine."""

    def asks(models: Sequence[str], load: int) -> list[Ask]:
        long = load >= 4
        return [
            Ask(
                model=models[turn % len(models)],
                prompt_tokens=_LONG_PROMPT_TOKENS if long else _PROMPT_TOKENS,
                answer_tokens=1 if long else answer_tokens,
                seed=(number * 10 + load) * 1_000 + turn,
            )
            for turn in range(_LONG_PROMPTS if long else _REQUESTS)
        ]

    return {
        f"{_REQUESTS} requests, base": asks([_BASE], 0),
        _ONE: asks(adapters[:1], 1),
        _FOUR: asks(adapters, 2),
        f"{_REQUESTS} requests, base and 3 adapters": asks([_BASE, *adapters[:3]], 3),
        f"{_LONG_PROMPTS} long prompts, 1 adapter": asks(adapters[:1], 4),
        f"{_LONG_PROMPTS} long prompts, 4 adapters": asks(adapters, 5),
    }


async def _speed(caller: Caller, asks: Sequence[Ask]) -> float:
    started = time.perf_counter()
    require_answers(await burst(caller, asks))
    seconds = time.perf_counter() - started
    decodes = asks[0].answer_tokens > 1
    return sum(ask.answer_tokens if decodes else ask.prompt_tokens for ask in asks) / seconds


def _measures(speeds: Speeds) -> list[Measure]:
    targets = {_ONE: 1.6, _FOUR: 1.3}
    measures = []
    for name in ("ours", "ours, stock product"):
        for (side, load), ours in speeds.items():
            if side == name:
                measures.append(
                    compare(
                        load if name == "ours" else f"{load} ({name})",
                        unit="prompt tokens/s" if "long" in load else "tokens/s",
                        ours=ours,
                        peer=speeds["stock", load],
                        target=targets.get(load) if name == "ours" else None,
                        better="higher",
                    )
                )
    return measures
