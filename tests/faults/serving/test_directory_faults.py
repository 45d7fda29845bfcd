"""Suspension and lost registries on a real engine: what must not be served is not, and the rest goes on."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from lorry.local.stack import Stack
from registry.client import RegistryClient
from registry.engines.schemas import Tier
from registry.errors import Leased
from registry.manifest import Manifest, Owner
from tests.support.revival import Revivable
from tests.support.waiting import until

Publish = Callable[..., Awaitable[Manifest]]
RandomAdapter = Callable[..., Path]
SUSPENSION_BOUND_SECONDS = 5.0
RESUMED_SECONDS = 60.0  # nobody promises how soon
LEASE_SECONDS = 60.0
ADA = Owner(tenant="default", user="ada")
WHY = "a test of suspension"


async def ask(engine: httpx.AsyncClient, model: str, *, max_tokens: int = 4) -> httpx.Response:
    body: dict[str, Any] = {"model": model, "prompt": "My name is", "max_tokens": max_tokens, "temperature": 0}
    return await engine.post("/v1/completions", json=body)


async def _ask_at_length(engine: httpx.AsyncClient, model: str) -> httpx.Response:
    """Have one long answer after the other made until there is none; return what ended the last."""
    while True:
        body = {"model": model, "prompt": "My name is", "max_tokens": 200, "ignore_eos": True}
        answer = await engine.post("/v1/completions", json=body)
        if answer.status_code != 200:
            return answer


async def until_answered(
    engine: httpx.AsyncClient, model: str, *, status: int, within_seconds: float
) -> tuple[float, httpx.Response]:
    """Ask until the answer has this status; return the seconds until it came, and the answer."""
    began = time.monotonic()
    while True:
        asked = time.monotonic()
        answer = await ask(engine, model, max_tokens=1)
        if answer.status_code == status:
            return time.monotonic() - began, answer
        assert asked - began < within_seconds, f"still {answer.status_code} after {asked - began:.1f} s"
        await asyncio.sleep(0.02)


@pytest.fixture(scope="module")
async def ada(engine: httpx.AsyncClient, random_adapter: RandomAdapter, publish: Publish) -> str:
    """An adapter that the engine holds."""
    version_id = (await publish(random_adapter(70), user="ada")).version_id
    assert (await ask(engine, version_id)).status_code == 200
    return version_id


@pytest.fixture(scope="module")
async def bob(engine: httpx.AsyncClient, random_adapter: RandomAdapter, publish: Publish) -> str:
    """Another user's adapter that the engine holds."""
    version_id = (await publish(random_adapter(71), user="bob")).version_id
    assert (await ask(engine, version_id)).status_code == 200
    return version_id


async def named(engine: httpx.AsyncClient) -> set[str]:
    return {each["version_id"] for each in (await engine.get("/lorry/adapters")).json()["adapters"]}


async def test_the_engine_is_in_the_directory_with_what_it_holds(
    stack: Stack, registry_client: RegistryClient, ada: str, bob: str
) -> None:
    async def are_told() -> bool:
        told = []
        for version_id in (ada, bob):
            holders = await registry_client.engines.holders(version_id)
            seen[version_id] += [each.tier for each in holders]
            told.append([(each.tier, each.leases) for each in holders])
        return told == [[("device", 0)]] * 2

    seen: dict[str, list[str]] = {ada: [], bob: []}
    await until(are_told, within_seconds=120)
    (found,) = (await registry_client.engines.list()).engines
    assert (found.id, found.state, found.address) == (stack.plan.engine_id, "alive", stack.plan.engine_url)
    # Told while it was fetched, it is on disk; an engine looks into its slots every ten seconds, until then it is in
    # host memory. Nothing makes it leave a place meanwhile.
    ranks = {version_id: [[*Tier].index(Tier(tier)) for tier in tiers] for version_id, tiers in seen.items()}
    assert ranks == {version_id: sorted(each) for version_id, each in ranks.items()}


@pytest.mark.parametrize("adapter", [None, "profile"])
async def test_a_suspended_adapter_is_refused_within_the_bound_and_serves_again_when_resumed(
    engine: httpx.AsyncClient, registry_client: RegistryClient, ada: str, bob: str, adapter: str | None
) -> None:
    before = (await ask(engine, ada)).json()["choices"][0]["text"]
    seconds = []
    for _ in range(3):
        await registry_client.lifecycle.suspend(ADA, adapter, why=WHY)
        took, refused = await until_answered(engine, ada, status=409, within_seconds=SUSPENSION_BOUND_SECONDS)
        seconds.append(took)
        assert "is suspended" in refused.json()["error"]["message"]
        assert (await ask(engine, bob)).status_code == 200
        await registry_client.lifecycle.resume(ADA, adapter, why=WHY)
        await until_answered(engine, ada, status=200, within_seconds=RESUMED_SECONDS)
    print(f"suspended → first refusal: {', '.join(f'{each:.2f}' for each in seconds)} s")

    assert (await ask(engine, ada)).json()["choices"][0]["text"] == before


async def test_a_suspended_adapter_leaves_the_engines_memory(
    engine: httpx.AsyncClient, registry_client: RegistryClient, ada: str, bob: str
) -> None:
    await registry_client.lifecycle.suspend(ADA, why=WHY)
    try:
        await until_answered(engine, ada, status=409, within_seconds=SUSPENSION_BOUND_SECONDS)

        async def has_left() -> bool:
            return ada not in await named(engine)

        await until(has_left)
        assert bob in await named(engine)
    finally:
        await registry_client.lifecycle.resume(ADA, why=WHY)
    await until_answered(engine, ada, status=200, within_seconds=RESUMED_SECONDS)


async def test_what_runs_on_a_suspended_adapter_is_ended_and_others_go_on(
    engine: httpx.AsyncClient, registry_client: RegistryClient, ada: str, bob: str
) -> None:
    async def stream(model: str) -> list[str]:
        body = {"model": model, "prompt": "Once", "max_tokens": 400, "ignore_eos": True, "stream": True}
        async with engine.stream("POST", "/v1/completions", json=body) as answer:
            assert answer.status_code == 200
            return [line async for line in answer.aiter_lines() if line.startswith("data: {")]

    whole = {"model": ada, "prompt": "Once", "max_tokens": 400, "ignore_eos": True}
    streams = [asyncio.create_task(stream(ada)), asyncio.create_task(stream(bob))]
    waiting = asyncio.create_task(engine.post("/v1/completions", json=whole))

    async def is_told() -> bool:
        return [each.leases for each in await registry_client.engines.holders(ada)] == [2]

    await until(is_told, within_seconds=120)
    await registry_client.lifecycle.suspend(ADA, why=WHY)
    began = time.monotonic()
    try:
        ended = await asyncio.wait_for(streams[0], SUSPENSION_BOUND_SECONDS)
        refused = await asyncio.wait_for(waiting, SUSPENSION_BOUND_SECONDS)
        print(f"suspended → running requests ended: {time.monotonic() - began:.2f} s")
    finally:
        await registry_client.lifecycle.resume(ADA, why=WHY)

    assert "is suspended" in json.loads(ended[-1].removeprefix("data: "))["error"]["message"]
    assert (refused.status_code, "is suspended" in refused.text) == (409, True)
    others = await streams[1]
    assert json.loads(others[-1].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
    await until_answered(engine, ada, status=200, within_seconds=RESUMED_SECONDS)


async def test_what_an_engine_answers_with_is_erased_by_force_only_and_its_requests_end(
    engine: httpx.AsyncClient, registry_client: RegistryClient, random_adapter: RandomAdapter, publish: Publish
) -> None:
    version_id = (await publish(random_adapter(72), user="erased-running")).version_id
    body = {"model": version_id, "prompt": "Once", "max_tokens": 400, "ignore_eos": True}
    running = asyncio.create_task(engine.post("/v1/completions", json=body))

    async def is_told() -> bool:
        return [each.leases for each in await registry_client.engines.holders(version_id)] == [1]

    await until(is_told, within_seconds=120)
    with pytest.raises(Leased):
        await registry_client.lifecycle.erase_version(version_id, why=WHY)
    await registry_client.lifecycle.erase_version(version_id, why=WHY, force=True)
    ended = await asyncio.wait_for(running, SUSPENSION_BOUND_SECONDS)

    assert (ended.status_code, "was erased" in ended.text) == (409, True)
    assert (await ask(engine, version_id)).status_code in {404, 409}
    assert (await ask(engine, "base")).status_code == 200


async def test_an_engine_without_its_registry_serves_for_its_lease_and_no_longer(
    engine: httpx.AsyncClient, registry: Revivable, ada: str, bob: str
) -> None:
    began = time.monotonic()
    async with registry.killed():
        dead = time.monotonic()
        while (lost := time.monotonic() - began) < LEASE_SECONDS - 8:
            assert (await ask(engine, ada)).status_code == 200, f"refused after {lost:.0f} s"
            await asyncio.sleep(4)
        running = asyncio.create_task(_ask_at_length(engine, bob))
        left = dead + LEASE_SECONDS - time.monotonic()
        _, refused = await until_answered(engine, ada, status=503, within_seconds=left + 4)
        print(f"registry killed → adapters refused: {time.monotonic() - dead:.1f} s")
        for answer in (refused, await running):
            assert "not heard from the registry" in answer.json()["error"]["message"]
            assert answer.headers["x-lorry-ask-another"] == "true", "it holds the adapter, and must not serve it"
        assert (await ask(engine, bob)).status_code == 503
        assert (await ask(engine, "base")).status_code == 200
        ready = await engine.get("/lorry/ready")
        assert (ready.status_code, "not heard" in ready.json()["detail"]) == (503, True)
        assert (await engine.get("/health")).status_code == 200

    took, _ = await until_answered(engine, ada, status=200, within_seconds=30)
    print(f"registry back → adapters served: {took:.2f} s")
    assert (await ask(engine, bob)).status_code == 200
    assert (await engine.get("/lorry/ready")).status_code == 200
