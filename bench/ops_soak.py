"""Everything at once for half an hour: does anything fail for our reasons, and does anything grow?

Two engines behind Envoy with live and batch requests, a new adapter published every few seconds and asked at once, and
an older user erased as often. Which requests may fail is known: those for users whose erasure has begun. Everything
else that is not answered is ours. Every quarter of a minute memory, file descriptors and connections of each engine, of
the registry and of Envoy are read; the median of the last fifth is compared with that of the fifth after the warm-up,
which is the first two. `--minutes` (or LORRY_BENCH_MINUTES) sets another length.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from bench.adapters import Factory, Recipe
from bench.engines import stop_when_terminated, tell, unpacked_base
from bench.load import Ask
from bench.report import Measure, compare, report
from registry.manifest import Owner
from serving.engine.pool.limits import RequestClass
from tests.support.fleet import Fleet, open_fleet

_LIVE_CALLERS, _BATCH_CALLERS = 4, 6
_USERS = 48
_PUBLISH_SECONDS, _SAMPLE_SECONDS = 5.0, 15.0
_GROWTH_TARGET, _FLAT_TARGET = 1.05, 1.05
_CONNECTIONS_TARGET = 1.5  # of ten or so, which come and go: one leaked with each publish would make it thirty times
_RECIPE = Recipe(rank=4)
_GONE = frozenset({404, 409, 410})
_WHY = "a soak erases"
_ENGINE = {
    "LORRY_MAX_LORAS": "8",
    "LORRY_MAX_CPU_LORAS": "24",
    "LORRY_MAX_NUM_SEQS": "16",
    "LORRY_MAX_MODEL_LEN": "512",
    "LORRY_ADAPTER_CACHE_GIB": "0.3",  # so that the disk's room is made, too
}


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What one part held at one moment."""

    resident_bytes: int
    descriptors: int
    connections: int


@dataclass
class Soak:
    """Who may be asked for, what came of it, and what parts held meanwhile."""

    fleet: Fleet
    factory: Factory
    folder: Path
    until: float
    users: dict[str, str] = field(default_factory=dict)  # user → live version
    leaving: set[str] = field(default_factory=set)  # versions whose erasure has begun
    ended: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    @property
    def goes_on(self) -> bool:
        """Whether there is time left."""
        return time.monotonic() < self.until

    async def publish(self) -> None:
        """Publish an adapter of a new user."""
        number = next(self.numbers)
        directory = await asyncio.to_thread(self.factory.write, self.folder / str(number), seed=number)
        user = f"user-{number}"
        self.users[user] = (await self.fleet.publish(directory, user=user)).version_id
        self.ended["published"] += 1

    async def erase(self) -> None:
        """Erase the oldest user."""
        user = next(iter(self.users))
        version_id = self.users.pop(user)
        self.leaving.add(version_id)
        await self.fleet.registry.lifecycle.erase_owner(Owner(tenant="default", user=user), why=_WHY, force=True)
        self.ended["erased"] += 1

    async def ask(self, kind: RequestClass, *, seed: int) -> None:
        """Ask one user's adapter, the popular ones more often; note what came of it."""
        drawn = random.Random(seed)
        users = list(self.users)
        user = drawn.choices(users, [1 / (place + 1) for place in range(len(users))])[0]
        version_id = self.users[user]
        ask = Ask(model=version_id, prompt_tokens=drawn.randint(4, 64), answer_tokens=drawn.randint(2, 24), seed=seed)
        headers = {"x-lorry-adapter": user, "x-lorry-class": kind, "x-lorry-tenant": f"tenant-{seed % 5}"}
        try:
            answer = await self.fleet.http.post("/v1/completions", json=ask.body(stream=False), headers=headers)
        except httpx.HTTPError as exc:
            self._note(kind, version_id, f"{type(exc).__name__} {exc}", is_gone=False)
            return
        if answer.status_code == 200:
            self.ended[f"{kind} answered"] += 1
        else:
            self._note(
                kind, version_id, f"{answer.status_code} {answer.text[:200]}", is_gone=answer.status_code in _GONE
            )

    def _note(self, kind: RequestClass, version_id: str, failure: str, *, is_gone: bool) -> None:
        if is_gone and version_id in self.leaving:
            self.ended[f"{kind} erased meanwhile"] += 1
        else:
            self.failures.append(f"{kind}: {failure}")

    def parts(self) -> dict[str, list[psutil.Process]]:
        """Return the processes of each part that is watched."""
        registry = next(pid for name, _, pid in self.fleet.stack.addresses() if name == "registry")
        watched = {"registry": [psutil.Process(registry)], "envoy": [psutil.Process(self.fleet.envoy.pid)]}
        return {**{member.name: member.processes for member in self.fleet.members}, **watched}


async def run(*, quick: bool) -> Path:
    """Measure and write the report."""
    minutes = float(os.environ.get("LORRY_BENCH_MINUTES", 3 if quick else 30))
    stop_when_terminated()
    with tempfile.TemporaryDirectory(prefix="lorry-bench-", ignore_cleanup_errors=True) as name:
        base = unpacked_base()
        async with open_fleet(Path(name) / "home", base_directory=base, engine=_ENGINE) as fleet:
            soak = Soak(fleet=fleet, factory=Factory(base, _RECIPE), folder=Path(name) / "new", until=0.0)
            for _ in range(_USERS):
                await soak.publish()
            tell(f"{_USERS} adapters are published; {minutes:g} minutes begin")
            soak.until = time.monotonic() + 60 * minutes
            await _soak(soak)
    for failure in sorted(set(soak.failures))[:5]:
        print(failure)
    print(dict(soak.ended))
    return report("ops_soak", _measures(soak, minutes=minutes), peer="after the warm-up", quick=quick)


async def _soak(soak: Soak) -> None:
    seeds = itertools.count()

    async def callers(kind: RequestClass) -> None:
        while soak.goes_on:
            await soak.ask(kind, seed=next(seeds))

    async def change() -> None:
        while soak.goes_on:
            await soak.publish()
            await soak.erase()
            await asyncio.sleep(_PUBLISH_SECONDS)

    async def watch() -> None:
        while soak.goes_on:
            for name, processes in soak.parts().items():
                soak.samples.setdefault(name, []).append(await asyncio.to_thread(_sample, processes))
            await asyncio.sleep(_SAMPLE_SECONDS)

    work: list[Coroutine[Any, Any, None]] = [callers("live") for _ in range(_LIVE_CALLERS)]
    work += [callers("batch") for _ in range(_BATCH_CALLERS)]
    async with asyncio.TaskGroup() as group:
        for each in (*work, change(), watch()):
            group.create_task(each)


def _sample(processes: list[psutil.Process]) -> Sample:
    return Sample(
        resident_bytes=sum(process.memory_full_info().pss for process in processes),
        descriptors=sum(process.num_fds() for process in processes),
        connections=sum(len(process.net_connections("tcp")) for process in processes),
    )


def _measures(soak: Soak, *, minutes: float) -> list[Measure]:
    asked = sum(count for name, count in soak.ended.items() if name.startswith(("live", "batch"))) + len(soak.failures)
    measures = [
        compare(
            f"requests that did not fail for our reasons, of {asked:,} in {minutes:g} minutes",
            unit="requests",
            ours=[asked - len(soak.failures)],
            peer=[asked],
            target=1.0,
            better="higher",
        )
    ]
    for name, samples in soak.samples.items():
        fifth = max(1, len(samples) // 5)
        early, late = samples[2 * fifth : 3 * fifth] or samples[:1], samples[-fifth:]
        for what, unit, target, scale in (
            ("resident_bytes", "MiB", _GROWTH_TARGET, 1 << 20),
            ("descriptors", "open files", _FLAT_TARGET, 1),
            ("connections", "connections", _CONNECTIONS_TARGET, 1),
        ):
            measures.append(
                compare(
                    f"{name}: {unit} at the end ÷ after the warm-up",
                    unit=unit,
                    ours=[statistics.median(getattr(each, what) for each in late) / scale],
                    peer=[statistics.median(getattr(each, what) for each in early) / scale],
                    target=target,
                )
            )
    return measures
