"""What a cold adapter costs: registry and S3 to the first token, beside the floor; and how long it stops the engine.

Each round the same things happen one after the other, while everything else stands still:

- the floor, in this process, for versions of the same size: GET, open the seal, digest, parse, copy; each step alone,
  by the quickest plain way, into memory that is there already;
- ours, idle: the seconds to the first token of a version that it has never seen, less the median of the same request
  once it is resident;
- stock vLLM, idle: how long ``add_lora`` of an adapter on its disk takes, which it spends on the engine's thread; what
  refusing such a call takes is deducted. Ours measures in the worker how long its copy keeps that thread.
"""

from __future__ import annotations

import hashlib
import http.client
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import torch
from safetensors.torch import load

from bench.engines import Engines, Side, open_engines
from bench.exposition import Exposition
from bench.load import Ask, Caller, require_answers
from bench.report import Measure, compare, report
from kit.sealing import open_stream
from registry.client import Grant
from registry.manifest import WEIGHTS_FILE

_COST_TARGET, _STALL_TARGET = 1.5, 0.10
_PROMPT_TOKENS = 32
_WARM = 5
_STAGES = ("resolve", "download", "engine_load", "queue", "read", "prepare")
_FLOOR = ("GET", "open", "digest", "parse", "copy")


async def run(*, quick: bool) -> Path:
    """Measure and write the report."""
    rounds, adapters = (2, 2) if quick else (6, 8)
    async with open_engines(engine={"max_loras": 4, "max_cpu_loras": 32}) as engines:
        bench = _Bench(engines)
        for number in range(rounds + 1):
            await bench.round(adapters, seed=number * 10_000, counts=number > 0)  # the first round warms up
    return report("engine_cold_load", bench.measures(), peer="the floor; stock vLLM's add_lora", quick=quick)


@dataclass
class _Seen:
    """What one of our engines showed, round by round, in milliseconds."""

    cold: list[float] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)
    stall: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=lambda: {stage: [] for stage in _STAGES})

    def note(self, tokens: list[tuple[float, float]], stages: dict[str, float], stall: float) -> None:
        """Add a round: cold and resident first tokens of its adapters, means by stage, and the mean stall."""
        self.cold.append(statistics.median(cold - warm for cold, warm in tokens))
        self.warm.append(statistics.median(warm for _, warm in tokens))
        self.stall.append(stall)
        for stage, mean in stages.items():
            self.stages[stage].append(mean)


class _Bench:
    """What was seen of every engine, in milliseconds."""

    def __init__(self, engines: Engines) -> None:
        self._engines = engines
        self._floors: dict[str, list[float]] = {step: [] for step in _FLOOR}
        self._floor: list[float] = []
        self._seen = {side.name: _Seen() for side in engines.ours}
        self._stock_stall: list[float] = []

    async def round(self, adapters: int, *, seed: int, counts: bool) -> None:
        """Measure so many adapters of each kind."""
        sides = self._engines.ours
        names = await self._engines.shelf.add((2 + len(sides)) * adapters)
        mine = {side.name: names[number * adapters :][:adapters] for number, side in enumerate(sides, start=2)}
        floors = [await self._measure_floor(name) for name in names[:adapters]]
        seen = {side.name: await self._measure_ours(side, mine[side.name], seed=seed) for side in sides}
        stock = await self._measure_stock(names[adapters : 2 * adapters])
        if not counts:
            return
        for step in _FLOOR:
            self._floors[step].append(statistics.median(floor[step] for floor in floors))
        self._floor.append(statistics.median(sum(floor.values()) for floor in floors))
        for name, (tokens, stages, stall) in seen.items():
            self._seen[name].note(tokens, stages, stall)
        self._stock_stall.append(statistics.median(stock))

    def measures(self) -> list[Measure]:
        """Return the report's rows."""
        measures: list[Measure] = []
        for name, seen in self._seen.items():
            cost = f"{name}: cold first token, less a resident one's, beside GET + open + digest + parse + copy"
            stall = f"{name}: engine's thread kept by one load, beside stock's add_lora"
            measures += [
                compare(cost, unit="ms", ours=seen.cold, peer=self._floor, target=_COST_TARGET),
                compare(stall, unit="ms", ours=seen.stall, peer=self._stock_stall, target=_STALL_TARGET),
                compare(f"{name}: first token of a resident one", unit="ms", ours=seen.warm),
                *(compare(f"{name}, stage: {stage}", unit="ms", ours=seen.stages[stage]) for stage in _STAGES),
            ]
        return [*measures, *(compare(f"floor, step: {step}", unit="ms", ours=self._floors[step]) for step in _FLOOR)]

    async def _measure_floor(self, version_id: str) -> dict[str, float]:
        grant = await self._engines.context.registry.grant(version_id)
        return _floor(grant)  # here every engine stands still

    async def _measure_ours(
        self, side: Side, names: list[str], *, seed: int
    ) -> tuple[list[tuple[float, float]], dict[str, float], float]:
        seen: list[tuple[float, float]] = []
        async with self._engines.only(side), Caller(side) as caller:
            before = await side.read_metrics()
            for number, name in enumerate(names):
                cold = await _first_token(caller, name, seed=seed + number * 100)
                warm = [
                    await _first_token(caller, name, seed=seed + number * 100 + 1 + again) for again in range(_WARM)
                ]
                seen.append((cold, statistics.median(warm)))
            after = await side.read_metrics()
        stages = {stage: _mean(before, after, "lorry_adapter_load_seconds", stage=stage) for stage in _STAGES}
        return seen, stages, _mean(before, after, "lorry_engine_stall_seconds")

    async def _measure_stock(self, names: list[str]) -> list[float]:
        side = self._engines.stock
        took = []
        async with (
            self._engines.only(side),
            httpx.AsyncClient(base_url=side.url, trust_env=False, timeout=60) as client,
        ):
            for name in names:
                body = {"lora_name": name, "lora_path": str(self._engines.shelf.stock_directory / name)}
                seconds = []
                for expected in (200, 400, 400, 400):  # loaded; then refused, since it is
                    began = time.perf_counter()
                    answer = await client.post("/v1/load_lora_adapter", json=body)
                    seconds.append((time.perf_counter() - began) * 1000)
                    if answer.status_code != expected:
                        raise RuntimeError(f"stock vLLM answered {answer.status_code}: {answer.text[:200]}")
                took.append(seconds[0] - statistics.median(seconds[1:]))
        return took


async def _first_token(caller: Caller, model: str, *, seed: int) -> float:
    ask = Ask(model=model, prompt_tokens=_PROMPT_TOKENS, answer_tokens=1, seed=seed)
    answer = await caller.ask(ask, stream=True)
    require_answers([answer])
    return answer.first_token_seconds * 1000


def _mean(before: Exposition, after: Exposition, name: str, **labels: str) -> float:
    return after.histogram_since(before, name, **labels).mean * 1000


def _floor(grant: Grant) -> dict[str, float]:
    """Do once, step by step, what nobody can do without."""
    torch.set_num_threads(1)
    weights = next(file for file in grant.manifest.files if file.path == WEIGHTS_FILE)
    plain_bytes = sum(file.size_bytes for file in grant.manifest.files)
    sealed, plain = bytearray(grant.sealed_bytes), bytearray(plain_bytes)
    took: dict[str, float] = {}

    with _timed(took, "GET"):
        _get(grant.url, sealed)
    with _timed(took, "open"):
        _open(grant, sealed, plain)
    with _timed(took, "digest"):
        begin = 0
        for file in grant.manifest.files:
            digest = hashlib.sha256(memoryview(plain)[begin : begin + file.size_bytes]).hexdigest()
            begin += file.size_bytes
            if digest != file.sha256:
                raise RuntimeError(f"{file.path} has another digest")
    content = bytes(plain[plain_bytes - weights.size_bytes :])
    with _timed(took, "parse"):
        tensors = list(load(content).values())
    slot = [torch.ones_like(tensor) for tensor in tensors]
    with _timed(took, "copy"):
        torch._foreach_copy_(slot, tensors)
    return took


def _get(url: str, into: bytearray) -> None:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
    try:
        connection.request("GET", f"{parts.path}?{parts.query}")
        answer, view, at = connection.getresponse(), memoryview(into), 0
        while count := answer.readinto(view[at:]):
            at += count
    finally:
        connection.close()
    if answer.status != 200 or at != len(into):
        raise RuntimeError(f"the object store answered {answer.status} with {at} bytes")


def _open(grant: Grant, sealed: bytearray, plain: bytearray) -> None:
    source, at = memoryview(sealed), 0

    def fill(view: memoryview) -> int:
        nonlocal source
        piece = source[: len(view)]
        view[: len(piece)] = piece
        source = source[len(piece) :]
        return len(piece)

    for piece in open_stream(fill, grant.content_key, context=grant.manifest.version_id.encode()):
        plain[at : at + len(piece)] = piece
        at += len(piece)


@contextmanager
def _timed(took: dict[str, float], step: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    took[step] = (time.perf_counter() - began) * 1000
