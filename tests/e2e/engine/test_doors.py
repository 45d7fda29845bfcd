"""What the real engine lets in, and how it says no."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from lorry.local.stack import Stack
from registry.errors import AdapterInvalid
from registry.manifest import Manifest
from tests.support.waiting import until

UNKNOWN = "v" + "0" * 32
QUESTION = {"prompt": "Hello", "max_tokens": 1, "temperature": 0}
CLOSED = ("/v1/models", "/docs", "/openapi.json", "/version", "/load", "/v1/responses", "/tokenizer_info")


async def samples(engine: httpx.AsyncClient) -> dict[str, float]:
    text = (await engine.get("/metrics")).text
    return {name: float(value) for name, value in re.findall(r"^(lorry_\S+) (\S+)$", text, re.MULTILINE)}


async def test_the_engine_is_ready(engine: httpx.AsyncClient) -> None:
    response = await engine.get("/lorry/ready")

    assert (response.status_code, response.json()) == (200, {"status": "ready", "base": "base"})


@pytest.mark.parametrize("model", [UNKNOWN, "users/ada", "V" + "0" * 32, UNKNOWN + "\n", "../etc"])
async def test_a_model_that_does_not_exist_is_404(engine: httpx.AsyncClient, model: str) -> None:
    response = await engine.post("/v1/completions", json={**QUESTION, "model": model})

    assert response.status_code == 404
    assert model.strip() in response.json()["error"]["message"]


async def test_a_refusal_does_not_poison_the_next_request(engine: httpx.AsyncClient, versions: list[str]) -> None:
    names = [UNKNOWN, versions[0], UNKNOWN, "base", versions[1]]
    answers = await asyncio.gather(*(engine.post("/v1/completions", json={**QUESTION, "model": n}) for n in names))

    assert [answer.status_code for answer in answers] == [404, 200, 404, 200, 200]


async def test_nobody_comes_in_without_the_token(stack: Stack, engine: httpx.AsyncClient) -> None:
    async with httpx.AsyncClient(timeout=60, base_url=stack.plan.engine_url) as stranger:
        assert (await stranger.post("/v1/completions", json={**QUESTION, "model": "base"})).status_code == 401
        assert (await stranger.get("/lorry/adapters")).status_code == 401
        assert (await stranger.get("/v1/models")).status_code == 401
        assert (await stranger.get("/health")).status_code == 200
        assert (await stranger.get("/metrics")).status_code == 200


@pytest.mark.parametrize("path", CLOSED)
async def test_what_else_vllm_offers_is_closed(engine: httpx.AsyncClient, path: str) -> None:
    assert (await engine.get(path)).status_code == 404
    assert (await engine.post(path, json={})).status_code == 404


@pytest.mark.parametrize("path", ["/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/tokenize", "/invocations"])
async def test_routes_that_touch_adapters_are_closed(engine: httpx.AsyncClient, versions: list[str], path: str) -> None:
    response = await engine.post(path, json={"lora_name": versions[0], "model": versions[0], "prompt": "x"})

    assert response.status_code == 404


async def test_a_crowd_in_front_of_one_cold_adapter_causes_one_load(
    engine: httpx.AsyncClient,
    random_adapter: Callable[..., Path],
    publish: Callable[..., Awaitable[Manifest]],
) -> None:
    version_id = (await publish(random_adapter(50), user="crowd")).version_id
    before = await samples(engine)
    answers = await asyncio.gather(
        *(engine.post("/v1/completions", json={**QUESTION, "model": version_id}) for _ in range(30))
    )
    after = await samples(engine)

    assert {answer.status_code for answer in answers} == {200}
    for stage in ("resolve", "download", "engine_load", "read", "prepare"):
        series = f'lorry_adapter_load_seconds_count{{source="registry",stage="{stage}"}}'
        assert after[series] - before[series] == 1
    assert (
        after['lorry_adapter_loads_total{outcome="loaded"}'] - before['lorry_adapter_loads_total{outcome="loaded"}']
        == 1
    )

    async def is_free() -> bool:  # a lease ends a moment after its answer
        listed = (await engine.get("/lorry/adapters")).json()["adapters"]
        return [adapter["leases"] for adapter in listed if adapter["version_id"] == version_id] == [0]

    await until(is_free)


async def test_an_adapter_that_is_larger_than_the_engines_slots_is_not_published(
    random_adapter: Callable[..., Path], publish: Callable[..., Awaitable[Manifest]]
) -> None:
    """The registry of one machine knows its engine's limit; the engine's own refusal is a unit test."""
    with pytest.raises(AdapterInvalid, match="rank 32 is above the limit of 16"):
        await publish(random_adapter(51, rank=32), user="large")


async def test_logs_and_metrics_name_no_tenant_user_or_token(
    stack: Stack, engine: httpx.AsyncClient, versions: list[str], private_names: list[str]
) -> None:
    for version_id in versions:
        await engine.post("/v1/completions", json={**QUESTION, "model": version_id, "prompt": "my-private-words"})
    log = (stack.plan.home.logs / "engine.log").read_text()
    metrics = (await engine.get("/metrics")).text

    assert versions[0] in log  # the log is the right one, and names versions
    for name in (*private_names, stack.plan.engine_token, stack.plan.registry_engine_token, "my-private-words"):
        assert name not in log
        assert name not in metrics
    assert "lorry_adapter_requests_total" in metrics
    assert "vllm:num_requests_running" in metrics
    assert not re.search(r"v[0-9a-f]{32}", metrics), "a label names a version"
