"""An engine that was away learns what was erased before it serves anything from its disk."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx

from lorry.local.stack import Stack
from registry.client import RegistryClient
from registry.manifest import Manifest
from tests.support.revival import Revivable
from tests.support.waiting import until

Publish = Callable[..., Awaitable[Manifest]]
RandomAdapter = Callable[..., Path]


async def ask(engine: httpx.AsyncClient, model: str) -> httpx.Response:
    body: dict[str, Any] = {"model": model, "prompt": "My name is", "max_tokens": 4, "temperature": 0}
    return await engine.post("/v1/completions", json=body)


async def test_what_is_erased_while_it_is_served_leaves_name_memory_and_disk(
    stack: Stack,
    engine: httpx.AsyncClient,
    registry_client: RegistryClient,
    random_adapter: RandomAdapter,
    publish: Publish,
) -> None:
    version_id = (await publish(random_adapter(75), user="erased-live")).version_id
    assert (await ask(engine, version_id)).status_code == 200
    files = stack.plan.home.path / "cache" / "adapters" / version_id
    assert files.is_dir()
    await registry_client.lifecycle.erase_version(version_id, why="a test", force=True)

    async def is_gone() -> bool:
        adapters = (await engine.get("/lorry/adapters")).json()["adapters"]
        return not files.exists() and version_id not in {each["version_id"] for each in adapters}

    await until(is_gone)
    assert (await ask(engine, version_id)).status_code in {404, 409}
    assert await is_gone()
    assert (await ask(engine, "base")).status_code == 200


async def test_an_engine_that_was_away_deletes_what_was_erased_before_it_serves(
    stack: Stack,
    engine: httpx.AsyncClient,
    engine_process: Revivable,
    registry_client: RegistryClient,
    random_adapter: RandomAdapter,
    publish: Publish,
) -> None:
    erased = (await publish(random_adapter(76), user="erased")).version_id
    kept = (await publish(random_adapter(77), user="kept")).version_id
    for version_id in (erased, kept):
        assert (await ask(engine, version_id)).status_code == 200
    cache = stack.plan.home.path / "cache" / "adapters"
    async with engine_process.stopped():
        assert (await registry_client.engines.get(stack.plan.engine_id)).state == "left"
        await registry_client.lifecycle.erase_version(erased, why="a test")
        never_heard_of = cache / ("v" + "f" * 32)
        shutil.copytree(cache / kept, never_heard_of)

    assert not (cache / erased).exists()  # ready, and so: before the first adapter was served
    assert (cache / kept).is_dir()
    assert (await ask(engine, erased)).status_code in {404, 409}
    assert (await ask(engine, never_heard_of.name)).status_code == 404
    assert (await ask(engine, kept)).status_code == 200

    async def is_told() -> bool:
        return await registry_client.engines.holders(erased) == ()

    await until(is_told)  # by the next heartbeat
    assert (await registry_client.engines.get(stack.plan.engine_id)).state == "alive"
