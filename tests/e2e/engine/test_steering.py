"""Steering a real engine: aliases that move under load, erasure with a receipt, prefetch, pins and drains."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from lorry.keys import local_api_key
from lorry.local.stack import Stack
from registry.client import RegistryClient
from registry.manifest import DEFAULT_ADAPTER, LIVE, Manifest, Owner
from tests.support.waiting import until

Publish = Callable[..., Awaitable[Manifest]]
RandomAdapter = Callable[..., Path]
LONG = "The wind blew over the hill and the people of the village went home. " * 20
RETIRED_WITHIN_SECONDS = 8.0


@pytest.fixture
async def public(stack: Stack, engine: httpx.AsyncClient) -> AsyncIterator[httpx.AsyncClient]:
    """A caller of the run's gateway."""
    await stack.ensure("gateway")
    headers = {"authorization": f"Bearer {await local_api_key(stack.plan)}"}
    async with httpx.AsyncClient(base_url=stack.plan.gateway_url, headers=headers, timeout=300) as client:
        yield client


async def text(engine: httpx.AsyncClient, model: str, prompt: str = LONG, *, max_tokens: int = 6) -> str:
    body = {"model": model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0}
    answer = await engine.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["text"])


async def samples(engine: httpx.AsyncClient) -> dict[str, float]:
    found = re.findall(r"^((?:lorry|vllm:prefix_cache)_\S+) (\S+)$", (await engine.get("/metrics")).text, re.MULTILINE)
    return {re.sub(r"{engine=[^}]*}", "", name): float(value) for name, value in found}


async def cached_tokens(engine: httpx.AsyncClient) -> float:
    return (await samples(engine))["vllm:prefix_cache_hits_total"]


async def held(engine: httpx.AsyncClient, version_id: str) -> dict[str, Any]:
    response = await engine.get(f"/lorry/adapters/{version_id}")
    assert response.status_code == 200, response.text
    return dict(response.json())


async def order(engine: httpx.AsyncClient, path: str, **body: Any) -> dict[str, Any]:
    response = await engine.post(f"/lorry/{path}", json=body)
    assert response.status_code == 200, response.text
    return dict(response.json())


async def test_a_moved_alias_serves_the_new_version_and_running_requests_finish_on_the_old(
    public: httpx.AsyncClient,
    engine: httpx.AsyncClient,
    registry_client: RegistryClient,
    random_adapter: RandomAdapter,
    publish: Publish,
) -> None:
    owner = Owner(tenant="default", user="moves")
    old, new = [await publish(random_adapter(seed), user="moves") for seed in (60, 61)]
    await registry_client.move_alias(owner, DEFAULT_ADAPTER, LIVE, version_id=old.version_id, expected_version_id=None)
    body: dict[str, Any] = {
        "model": "users/moves",
        "messages": [{"role": "user", "content": LONG}],
        "temperature": 0,
        "max_tokens": 300,
    }
    alone = (await public.post("/v1/chat/completions", json=body)).json()["choices"][0]["message"]["content"]

    words: list[str] = []
    async with public.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as running:
        assert running.headers["x-lorry-adapter-version"] == str(old.version)
        lines = running.aiter_lines()
        while len(words) < 3:
            words += said(await anext(lines))
        await registry_client.move_alias(
            owner, DEFAULT_ADAPTER, LIVE, version_id=new.version_id, expected_version_id=old.version_id
        )
        await asyncio.sleep(1.1)  # as long as the gateway remembers an alias
        before = await cached_tokens(engine)
        fresh = await public.post("/v1/chat/completions", json={**body, "max_tokens": 6})
        assert fresh.headers["x-lorry-adapter-version"] == str(new.version)
        assert await cached_tokens(engine) == before, "the new version found blocks of the old one"
        assert (await held(engine, old.version_id))["leases"] == 1
        async for line in lines:
            words += said(line)
    assert "".join(words) == alone
    assert not alone.startswith(fresh.json()["choices"][0]["message"]["content"])

    began = asyncio.get_running_loop().time()
    while (await held(engine, old.version_id))["host_bytes"] is not None:
        assert asyncio.get_running_loop().time() - began < RETIRED_WITHIN_SECONDS, "the old version stays"
        await asyncio.sleep(0.2)
    assert (await held(engine, new.version_id))["host_bytes"] > 0
    assert (await samples(engine))['lorry_adapter_evictions_total{reason="superseded",tier="host"}'] >= 1


def said(line: str) -> list[str]:
    if not line.startswith("data: {"):
        return []
    return [json.loads(line.removeprefix("data: "))["choices"][0]["delta"].get("content") or ""]


async def test_an_erasure_waits_or_aborts_and_its_receipt_says_what_it_did_where(
    engine: httpx.AsyncClient, random_adapter: RandomAdapter, publish: Publish
) -> None:
    version_id = (await publish(random_adapter(62), user="erased-here")).version_id
    answer = await text(engine, version_id)
    before = await cached_tokens(engine)
    assert await text(engine, version_id) == answer
    assert await cached_tokens(engine) > before, "the prefix cache works, or the check below says nothing"

    body = {"model": version_id, "prompt": "Once", "max_tokens": 400, "ignore_eos": True}
    running = asyncio.create_task(engine.post("/v1/completions", json=body))
    while (await held(engine, version_id))["leases"] == 0:
        assert not running.done()
        await asyncio.sleep(0.05)
    refused = await engine.post(f"/lorry/adapters/{version_id}/erase", json={"wait_seconds": 0.2})
    assert (refused.status_code, refused.json()["leases"]) == (409, 1)

    erasing = asyncio.create_task(order(engine, f"adapters/{version_id}/erase", leases="abort"))
    receipt, ended = await erasing, await running
    assert (ended.status_code, "is being erased" in ended.text) == (409, True)
    removal = receipt["memory"]["removal"]
    assert receipt["memory"]["leases"] == 1
    assert (removal["named"], removal["workers"], removal["slots_zeroed"]) == (True, 1, 1)
    assert removal["host_bytes"] > 1_000_000
    assert receipt["disk_bytes"] > 1_000_000
    assert (await engine.get(f"/lorry/adapters/{version_id}")).status_code == 404
    assert (await engine.get("/lorry/erasures")).json()["erasures"][0] == receipt

    before = await cached_tokens(engine)
    assert await text(engine, version_id) == answer  # the registry still serves it, so it comes back
    assert await cached_tokens(engine) == before, "an erased adapter's blocks were found again"


async def test_an_erasure_that_waits_lets_running_requests_finish(
    engine: httpx.AsyncClient, random_adapter: RandomAdapter, publish: Publish
) -> None:
    version_id = (await publish(random_adapter(63), user="erased-later")).version_id
    await text(engine, version_id)
    body = {"model": version_id, "prompt": "Once", "max_tokens": 400, "ignore_eos": True}
    running = asyncio.create_task(engine.post("/v1/completions", json=body))
    while (await held(engine, version_id))["leases"] == 0:
        assert not running.done()
        await asyncio.sleep(0.02)
    receipt, finished = await asyncio.gather(
        order(engine, f"adapters/{version_id}/erase", leases="wait", wait_seconds=280), running
    )
    assert finished.json()["usage"]["completion_tokens"] == 400
    assert receipt["memory"]["waited_seconds"] > 0


async def test_prefetching_and_pinning_take_no_slot(
    engine: httpx.AsyncClient, random_adapter: RandomAdapter, publish: Publish
) -> None:
    version_id = (await publish(random_adapter(64), user="pinned")).version_id
    before = await samples(engine)
    assert (await order(engine, f"adapters/{version_id}/prefetch", wait=True))["state"] == "loaded"
    await order(engine, f"adapters/{version_id}/pin")
    seen = await held(engine, version_id)
    assert (seen["slot"], seen["pinned"], seen["leases"]) == (None, True, 0)
    after = await samples(engine)
    assert after["lorry_engine_stall_seconds_count"] == before["lorry_engine_stall_seconds_count"]

    await text(engine, version_id)
    assert (await held(engine, version_id))["slot"] is not None
    last = await samples(engine)
    hit = 'lorry_adapter_requests_total{class="live",tier="host"}'
    assert last[hit] - after[hit] == 1
    assert last["lorry_engine_stall_seconds_count"] - after["lorry_engine_stall_seconds_count"] == 1
    await order(engine, f"adapters/{version_id}/unpin")


async def test_residency_gauges_and_routes_agree(engine: httpx.AsyncClient, versions: list[str]) -> None:
    for version_id in versions:
        await text(engine, version_id, "Hello", max_tokens=1)

    async def is_idle() -> bool:  # a lease ends a moment after its answer
        requests = (await engine.get("/lorry/residency")).json()["requests"]
        return bool(requests == {kind: {"leases": 0, "queued": 0} for kind in ("live", "batch")})

    await until(is_idle)
    residency, gauges = (await engine.get("/lorry/residency")).json(), await samples(engine)
    for tier, seen in residency["tiers"].items():
        assert gauges[f'lorry_adapters{{tier="{tier}"}}'] == seen["adapters"]
        assert gauges[f'lorry_adapter_bytes{{tier="{tier}"}}'] == seen["size_bytes"]
    assert residency["tiers"]["slot"]["adapters"] == residency["tiers"]["slot"]["max_adapters"]
    assert residency["requests"] == {kind: {"leases": 0, "queued": 0} for kind in ("live", "batch")}
    slowest = (await engine.get("/lorry/troubles")).json()["slowest"]
    assert slowest[0]["seconds"] >= slowest[-1]["seconds"] > 0


async def test_a_drained_engine_is_not_ready_finishes_what_runs_and_can_be_taken_back(
    engine: httpx.AsyncClient, versions: list[str]
) -> None:
    body = {"model": versions[0], "prompt": "Once", "max_tokens": 400, "ignore_eos": True}
    running = asyncio.create_task(engine.post("/v1/completions", json=body))
    while (await engine.get("/lorry/residency")).json()["requests"]["live"]["leases"] == 0:
        assert not running.done()
        await asyncio.sleep(0.02)
    try:
        report = await order(engine, "drain", wait_seconds=0.1)
        assert (report["drained"], report["inside"]) == (False, 1)
        ready = await engine.get("/lorry/ready")
        assert (ready.status_code, "drained" in ready.json()["detail"]) == (503, True)
        for model in (versions[1], "base"):
            refused = await engine.post("/v1/completions", json={**body, "model": model})
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert (await order(engine, "drain", wait_seconds=280))["drained"] is True
        assert (await running).json()["usage"]["completion_tokens"] == 400
    finally:
        await order(engine, "resume")
    assert (await engine.get("/lorry/ready")).status_code == 200
    await text(engine, versions[1], "Hello", max_tokens=1)


async def test_an_order_that_is_not_understood_names_the_field(engine: httpx.AsyncClient, versions: list[str]) -> None:
    response = await engine.post(f"/lorry/adapters/{versions[0]}/erase", json={"leases": "kill"})
    assert (response.status_code, response.json()["field"]) == (422, "leases")
    assert response.headers["content-type"] == "application/problem+json"
