"""Thousands of users through one engine, one after the other: nothing fails, and nothing grows.

Adapters of distinct bytes, small so that there can be many, published through the registry and asked once each by a few
callers at a time. The engine's memory (all its processes, shared pages once) after the first 200 is compared with that
after the last; so are its tables and its metrics. The disk is given room for a quarter of them. `LORRY_BENCH_ADAPTERS`
sets another number than 2,000. Ours goes twice, with either product; stock vLLM gets the same adapters, from its local
disk. With `LORRY_BENCH_ALONE=1` ours goes once and nobody else, which makes of an hour for 10,000 a quarter of it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.adapters import Recipe
from bench.engines import PRODUCTS, Engines, Side, open_engines, tell
from bench.load import Ask, Caller, keep_up
from bench.report import Measure, compare, report

_CALLERS = 8
_PROMPT_TOKENS, _ANSWER_TOKENS = 8, 2
_CAPACITY = 32
_TARGET = 1.1
_RECIPE = Recipe(rank=1, modules=("q_proj",), dtype="float16")
_ADAPTER_BYTES = 80_000  # a little more than they have, sealed
_DISK_SHARE = 0.25
_MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What an engine held at one moment; `disk_bytes` of its own cache."""

    resident_bytes: int
    named: int
    metrics_bytes: int
    disk_bytes: int


@dataclass(frozen=True, kw_only=True)
class Passage:
    """What all users together made of one engine."""

    early: Reading
    late: Reading
    failures: list[str]
    seconds: float


async def run(*, quick: bool) -> Path:
    """Measure and write the report."""
    users = int(os.environ.get("LORRY_BENCH_ADAPTERS", 120 if quick else 2_000))
    early = 60 if quick else 200
    engine = {"max_loras": 4, "max_cpu_loras": _CAPACITY, "max_num_seqs": 16, "max_model_len": 256}
    room = {"adapter_cache_gib": _DISK_SHARE * users * _ADAPTER_BYTES / (1 << 30)}
    alone = os.environ.get("LORRY_BENCH_ALONE") == "1"
    products = PRODUCTS[:1] if alone else PRODUCTS
    async with open_engines(products=products, stock=not alone, engine=engine, ours=room) as engines:
        models = await engines.shelf.add(users, _RECIPE)
        tell(f"{users:,} adapters are published")
        found = {side.name: await _passage(engines, side, models, early=early) for side in engines.sides.values()}
        names = [side.name for side in engines.ours]
    for name, passage in found.items():
        for failure in sorted(set(passage.failures))[:3]:
            print(f"{name}: {failure}")
    measures = [each for name in names for each in _measures(name, found[name], users=users, early=early)]
    if not alone:
        measures += _beside_stock(found["ours"], found["stock"], users=users, early=early)
    peer = f"after {early} users" + ("" if alone else "; stock vLLM")
    return report("engine_many_users", measures, peer=peer, quick=quick)


async def _passage(engines: Engines, side: Side, models: list[str], *, early: int) -> Passage:
    failures: list[str] = []
    async with engines.only(side), Caller(side) as caller:
        began = time.perf_counter()
        failures += await _ask_each(caller, models[:early], seed=0)
        first = await _read(side)
        failures += await _ask_each(caller, models[early:], seed=early)
        seconds = time.perf_counter() - began
        tell(f"{side.name}: all users in {seconds:.0f} s")
        last = await _read(side)
    return Passage(early=first, late=last, failures=failures, seconds=seconds)


async def _ask_each(caller: Caller, models: list[str], *, seed: int) -> list[str]:
    asks = _asks(models, seed=seed)
    answers = await keep_up(caller, callers=_CALLERS, next_ask=lambda: next(asks, None))
    return [answer.failure for answer in answers if answer.failure is not None]


def _asks(models: list[str], *, seed: int) -> Iterator[Ask]:
    for number, model in enumerate(models):
        yield Ask(
            model=model,
            prompt_tokens=_PROMPT_TOKENS,
            answer_tokens=_ANSWER_TOKENS,
            seed=seed + number,
            tenant=f"tenant-{number % 50}",
        )


async def _read(side: Side) -> Reading:
    metrics = await side.read_metrics()
    if side.is_ours:
        tiers = (await side.get("/lorry/residency"))["tiers"]
        named, disk_bytes = tiers["host"]["adapters"], tiers["disk"]["size_bytes"]
    else:
        named, disk_bytes = len((await side.get("/v1/models"))["data"]), 0
    return Reading(
        resident_bytes=side.resident_bytes(), named=named, metrics_bytes=metrics.size_bytes, disk_bytes=disk_bytes
    )


def _measures(name: str, ours: Passage, *, users: int, early: int) -> list[Measure]:
    return [
        compare(
            f"{name}: requests that were answered, of {users:,}",
            unit="requests",
            ours=[users - len(ours.failures)],
            peer=[users],
            target=1.0,
            better="higher",
        ),
        compare(
            f"{name}: memory after {users:,} users ÷ after {early}",
            unit="MiB",
            ours=[ours.late.resident_bytes / _MIB],
            peer=[ours.early.resident_bytes / _MIB],
            target=_TARGET,
        ),
        compare(
            f"{name}: adapters known by name at the end ÷ room for {_CAPACITY}",
            unit="names",
            ours=[ours.late.named],
            peer=[_CAPACITY],
            target=1.0,
        ),
        compare(
            f"{name}: bytes on disk at the end ÷ bound",
            unit="MiB",
            ours=[ours.late.disk_bytes / _MIB],
            peer=[_DISK_SHARE * users * _ADAPTER_BYTES / _MIB],
            target=1.0,
        ),
        compare(
            f"{name}: size of /metrics at the end ÷ early",
            unit="bytes",
            ours=[ours.late.metrics_bytes],
            peer=[ours.early.metrics_bytes],
            target=_TARGET,
        ),
    ]


def _beside_stock(ours: Passage, stock: Passage, *, users: int, early: int) -> list[Measure]:
    return [
        compare(
            f"stock: memory after {users:,} users ÷ after {early}",
            unit="MiB",
            ours=[stock.late.resident_bytes / _MIB],
            peer=[stock.early.resident_bytes / _MIB],
        ),
        compare(
            "adapters known by name at the end ÷ stock's", unit="names", ours=[ours.late.named], peer=[stock.late.named]
        ),
        compare("requests that stock failed", unit="requests", ours=[len(stock.failures)]),
        compare(
            "users a second, each cold: ours from S3, stock from its disk",
            unit="1/s",
            ours=[users / ours.seconds],
            peer=[users / stock.seconds],
            better="higher",
        ),
    ]
