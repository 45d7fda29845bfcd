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
from bench.report import Measure, compare, report

_REQUESTS = 16
_ADAPTERS = 4
_PROMPT_TOKENS = 32
_LONG_PROMPT_TOKENS = 256
_BASE = "base"
Speeds = dict[tuple[str, str], list[float]]
"""Tokens a second of every round, by engine and load."""


async def run(*, quick: bool) -> Path:
    """Run the benchmark and write its report."""
    limits = {"max_loras": _ADAPTERS, "max_cpu_loras": 2 * _ADAPTERS, "max_num_seqs": _REQUESTS, "kv_cache_gib": 1}
    async with open_engines(engine=limits) as engines:
        adapters = await engines.shelf.add(_ADAPTERS)
        speeds = await _measure(engines, adapters, rounds=2 if quick else 6, answer_tokens=24 if quick else 64)
    return report("engine_cpu_product", _measures(speeds), peer="stock vLLM, filesystem resolver", quick=quick)


async def _measure(engines: Engines, adapters: Sequence[str], *, rounds: int, answer_tokens: int) -> Speeds:
    speeds: Speeds = {}
    for number in range(rounds + 1):
        for side in engines.turns(number):
            async with engines.only(side), Caller(side) as caller:
                for load, asks in _loads(adapters, number, answer_tokens).items():
                    speed = await _speed(caller, asks)
                    if number:  # the first round loads the adapters, and warms the servers up
                        speeds.setdefault((side.name, load), []).append(speed)
    return speeds


def _loads(adapters: Sequence[str], number: int, answer_tokens: int) -> dict[str, list[Ask]]:
    """Return the requests of a round, by load; equal for every engine."""

    def asks(
        models: Sequence[str], load: int, *, prompt: int = _PROMPT_TOKENS, answer: int = answer_tokens
    ) -> list[Ask]:
        return [
            Ask(
                model=models[turn % len(models)],
                prompt_tokens=prompt,
                answer_tokens=answer,
                seed=(number * 10 + load) * 1_000 + turn,
            )
            for turn in range(_REQUESTS)
        ]

    return {
        "base": asks([_BASE], 0),
        "1 adapter": asks(adapters[:1], 1),
        "4 adapters": asks(adapters, 2),
        "base and 3 adapters": asks([_BASE, *adapters[:3]], 3),
        "1 adapter, long prompts": asks(adapters[:1], 4, prompt=_LONG_PROMPT_TOKENS, answer=1),
        "4 adapters, long prompts": asks(adapters, 5, prompt=_LONG_PROMPT_TOKENS, answer=1),
    }


async def _speed(caller: Caller, asks: Sequence[Ask]) -> float:
    started = time.perf_counter()
    require_answers(await burst(caller, asks))
    seconds = time.perf_counter() - started
    decodes = asks[0].answer_tokens > 1
    return sum(ask.answer_tokens if decodes else ask.prompt_tokens for ask in asks) / seconds


def _measures(speeds: Speeds) -> list[Measure]:
    targets = {"1 adapter": 1.6, "4 adapters": 1.3}
    measures = []
    for name in ("ours", "ours, stock product"):
        for (side, load), ours in speeds.items():
            if side == name:
                unit = "prompt tokens/s" if "long" in load else "tokens/s"
                label = f"{_REQUESTS} requests, {load}" + ("" if name == "ours" else f" ({name})")
                target = targets.get(load) if name == "ours" else None
                measures.append(
                    compare(label, unit=unit, ours=ours, peer=speeds["stock", load], target=target, better="higher")
                )
    return measures
