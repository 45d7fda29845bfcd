"""Seconds from transcripts to a profile by stage, and what loading an adapter costs beside stock vLLM.

The first half runs the pipeline once for one real person. The second publishes the trained adapter for many users, so
that every load is of a version the engine has never seen, and asks each version for one token, cold and then
warm: ours from the registry and S3, stock's from directories on its disk, in turn.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx

from bench.report import Measure, compare, report
from bench.stock import stock_engine
from lorry.commands.demo import choose_people
from lorry.context import Context, base_directory, open_context
from lorry.load_report import read_load_report
from lorry.local.part import start_part
from lorry.pipeline import resolve_config
from lorry.stages.building import build_user_dataset
from lorry.stages.extracting import extract_user_profile
from lorry.stages.importing import import_transcripts
from lorry.stages.training import evaluate_users, train_users
from registry.client import draft_from_directory
from registry.lifecycle.policy import Gate, Gates, TenantPolicy
from registry.manifest import Owner
from serving.engine.settings import EngineSettings
from training.publishing import publish
from training.trainer import TrainedAdapter

T = TypeVar("T")
_USER = "first"
_STOCK_PORT = 25_901


async def run(*, quick: bool) -> Path:
    """Run the benchmark in a home of its own and write its report."""
    with tempfile.TemporaryDirectory(prefix="lorry-bench-") as folder:
        os.environ |= {"LORRY_HOME": folder, "LORRY_PORT_BASE": "25600", "LORRY_GATEWAY_PORT": "25680"}
        clock = _Clock()
        settings = ["steps=4", "dataset.max_examples=24"] if quick else []
        async with open_context() as context:
            trained = await _first_profile(context, clock, settings)
            loads = await _loads(context, trained, Path(folder), rounds=3 if quick else 12)
    stages = [compare(f"stage: {name}", unit="s", ours=[seconds]) for name, seconds in clock.seconds.items()]
    total = compare("transcripts to profile", unit="s", ours=[sum(clock.seconds.values())])
    return report("first_profile", [total, *stages, *loads], peer="stock vLLM, filesystem resolver", quick=quick)


class _Clock:
    """Seconds of each stage, in order."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    async def time(self, stage: str, work: Awaitable[T]) -> T:
        started = time.perf_counter()
        result = await work
        self.seconds[stage] = time.perf_counter() - started
        return result


async def _first_profile(context: Context, clock: _Clock, settings: list[str]) -> TrainedAdapter:
    config = resolve_config(None, settings)
    (sender,) = choose_people(1, seed=0)
    started = time.perf_counter()
    base_directory(context.plan)
    clock.seconds["unpack the base model (once a machine)"] = time.perf_counter() - started
    await clock.time("import", import_transcripts(context, user=_USER, path="chitchat", user_speaker=sender))
    dataset = await clock.time("build dataset", build_user_dataset(context, user=_USER, config=config))
    runs = await clock.time(
        "train (with loading the base)",
        train_users(context, {_USER: dataset}, config=config, on_step=lambda *_: None),
    )
    scores = await clock.time("evaluate", evaluate_users(context, runs, {_USER: dataset}, on_score=lambda *_: None))
    owner = Owner(tenant=context.settings.tenant, user=_USER)
    evaluation = scores.users[_USER]
    publishing = publish(
        runs[_USER], evaluation, owner=owner, registry=context.registry, base_directory=base_directory(context.plan)
    )
    published = await clock.time("publish", publishing)
    if not published.live:  # a smoke run trains too little to pass its gate; what is timed is the same
        gates = Gates(trained=Gate())
        await context.registry.lifecycle.put_policy(owner.tenant, TenantPolicy(gate=gates), why="a smoke run")
        await context.registry.move_alias(
            owner, "profile", "live", version_id=published.manifest.version_id, expected_version_id=None
        )
    await clock.time("start the engine (once a machine)", context.stack.ensure("engine"))
    await clock.time("extract", extract_user_profile(context, user=_USER))
    return runs[_USER]


async def _loads(context: Context, trained: TrainedAdapter, folder: Path, *, rounds: int) -> list[Measure]:
    """Time cold and warm first tokens of both engines in turn, each round on adapters that neither has seen."""
    versions = [await _publish_copy(context, trained, number) for number in range(rounds + 1)]
    stock_adapters = folder / "stock"
    for number in range(rounds + 1):
        shutil.copytree(trained.adapter_directory, stock_adapters / f"copy-{number}")
        _name_base(stock_adapters / f"copy-{number}", base_directory(context.plan))
    before = await read_load_report(context.plan.engine_url)
    peer = await start_part(_peer(context, stock_adapters, folder))
    try:
        await peer.wait_until_healthy()
        ours = _asker(context.plan.engine_url, context.plan.engine_token)
        stock = _asker(peer.part.address, "")
        cold: dict[str, list[float]] = {"ours": [], "peer": []}
        warm: dict[str, list[float]] = {"ours": [], "peer": []}
        for number in range(rounds + 1):
            turn = [("ours", ours, versions[number]), ("peer", stock, f"copy-{number}")]
            for side, ask, model in turn if number % 2 else reversed(turn):
                first, second = await ask(model), await ask(model)
                if number:  # the first round warms both servers up
                    cold[side].append(first - second)
                    warm[side].append(second)
    finally:
        await peer.stop()
    after = await read_load_report(context.plan.engine_url)
    return [
        compare("cold load: first token − warm first token", unit="s", ours=cold["ours"], peer=cold["peer"]),
        compare("warm first token", unit="s", ours=warm["ours"], peer=warm["peer"]),
        *(compare(f"our load stage: {stage}", unit="s", ours=[_mean_since(before, after, stage)]) for stage in after),
    ]


def _peer(context: Context, adapters: Path, folder: Path) -> Any:
    settings = EngineSettings(
        base_directory=base_directory(context.plan),
        engine_token="unused-token",  # pydantic wraps it
        registry_url="http://127.0.0.1:1",
        registry_engine_token="unused-token",  # pydantic wraps it
        adapter_cache_directory=folder,
    )
    return stock_engine(settings, adapters=adapters, port=_STOCK_PORT, log_path=folder / "stock.log")


def _asker(url: str, token: str) -> Callable[[str], Awaitable[float]]:
    """Return a call that asks a model for one token and returns its seconds; a peer without a token needs none."""
    headers = {"authorization": f"Bearer {token}"} if token else {}

    async def ask(model: str) -> float:
        body = {"model": model, "prompt": "Hello, how are you?", "max_tokens": 1, "temperature": 0}
        async with httpx.AsyncClient(trust_env=False, timeout=120) as client:
            started = time.perf_counter()
            response = await client.post(f"{url}/v1/completions", json=body, headers=headers)
            response.raise_for_status()
            return time.perf_counter() - started

    return ask


async def _publish_copy(context: Context, trained: TrainedAdapter, number: int) -> str:
    owner = Owner(tenant=context.settings.tenant, user=f"copy-{number}")
    draft = draft_from_directory(trained.adapter_directory, owner=owner, base=trained.base)
    return (await context.registry.publish(trained.adapter_directory, draft=draft)).version_id


def _name_base(directory: Path, base: Path) -> None:
    """Stock's resolver compares the configuration's base with its --model argument."""
    path = directory / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": str(base)}))


def _mean_since(before: dict[str, dict[str, float]], after: dict[str, dict[str, float]], stage: str) -> float:
    old = before.get(stage, {"loads": 0.0, "mean_seconds": 0.0})
    new = after[stage]
    loads = new["loads"] - old["loads"]
    total = new["loads"] * new["mean_seconds"] - old["loads"] * old["mean_seconds"]
    return total / loads if loads else new["mean_seconds"]
