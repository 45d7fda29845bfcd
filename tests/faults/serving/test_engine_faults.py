"""What one broken part does to a real engine: one request fails with the reason, the others are answered."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from kit.storage import ObjectStorage
from lorry.local.stack import Stack
from registry.manifest import Manifest
from registry.publishing.layout import sealed_key
from serving.engine.installer import SEALED_FILE
from tests.support.revival import Revivable

Publish = Callable[..., Awaitable[Manifest]]
RandomAdapter = Callable[..., Path]
REFUSAL_SECONDS = 2.5  # a little longer than the engine remembers a refusal


async def ask(engine: httpx.AsyncClient, model: str, *, max_tokens: int = 8) -> httpx.Response:
    body: dict[str, Any] = {"model": model, "prompt": "My name is", "max_tokens": max_tokens, "temperature": 0}
    return await engine.post("/v1/completions", json=body)


def text_of(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["text"])


def reason_of(response: httpx.Response) -> str:
    return str(response.json()["error"]["message"])


def cached(stack: Stack, version_id: str) -> Path:
    return stack.plan.home.path / "cache" / "adapters" / version_id


@pytest.fixture(scope="module")
async def resident(engine: httpx.AsyncClient, random_adapter: RandomAdapter, publish: Publish) -> tuple[str, str]:
    """An adapter that the engine holds already, and what it answers."""
    version_id = (await publish(random_adapter(60), user="resident")).version_id
    return version_id, text_of(await ask(engine, version_id))


async def failed_loads(engine: httpx.AsyncClient) -> Counter[str]:
    """How many loads failed so far, by reason."""
    lines = (await engine.get("/metrics")).text.splitlines()
    named = [line for line in lines if line.startswith("lorry_adapter_load_failures_total{")]
    return Counter({line.split('reason="')[1].split('"')[0]: int(float(line.rsplit(" ", 1)[1])) for line in named})


@pytest.fixture(scope="module", autouse=True)
async def before(engine: httpx.AsyncClient) -> Counter[str]:
    """What had failed on this engine before these tests."""
    return await failed_loads(engine)


@pytest.mark.parametrize("damage", ["bit flip", "truncated", "gone"])
async def test_a_damaged_download_fails_alone_and_heals(
    stack: Stack,
    engine: httpx.AsyncClient,
    resident: tuple[str, str],
    random_adapter: RandomAdapter,
    publish: Publish,
    damage: str,
) -> None:
    manifest = await publish(random_adapter(61), user=f"damaged-{damage.replace(' ', '-')}")
    storage, key = ObjectStorage(stack.plan.storage), sealed_key(manifest)
    sound = await storage.get(key)
    if damage == "gone":
        await storage.delete(key)
    else:
        await storage.put(key, sound[:-64] if damage == "truncated" else sound[:-1] + bytes([sound[-1] ^ 1]))
    names = [manifest.version_id, resident[0], "base", manifest.version_id, resident[0]]
    answers = await asyncio.gather(*(ask(engine, name) for name in names))

    assert [answer.status_code for answer in answers] == [502, 200, 200, 502, 200]
    assert "the object store" in reason_of(answers[0])
    assert text_of(answers[1]) == text_of(answers[4]) == resident[1]

    await storage.put(key, sound)
    await asyncio.sleep(REFUSAL_SECONDS)
    assert (await ask(engine, manifest.version_id)).status_code == 200


@contextmanager
def frozen(processes: list[psutil.Process]) -> Iterator[None]:
    """Stop processes where they are; they go on when the block ends."""
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


def engine_core(engine_process: Revivable) -> list[psutil.Process]:
    """Every process of the engine but its API server."""
    return engine_process.process.children(recursive=True)


def rot(path: Path) -> None:
    """Change every byte where it lies; a file of another length would be another fault."""
    size_bytes = path.stat().st_size
    with path.open("r+b") as file:
        file.write(b"\xff" * size_bytes)


async def sealed_object(stack: Stack, manifest: Manifest) -> bytes:
    return await ObjectStorage(stack.plan.storage).get(sealed_key(manifest))


def put_on_disk(stack: Stack, version_id: str, sealed: bytes) -> Path:
    """Lay a version's sealed object where an earlier start of the engine would have left it."""
    directory = cached(stack, version_id)
    directory.mkdir(mode=0o700)
    (directory / SEALED_FILE).write_bytes(sealed)
    return directory / SEALED_FILE


async def test_what_rotted_on_disk_is_not_trusted_and_fetched_again(
    stack: Stack, engine: httpx.AsyncClient, resident: tuple[str, str], random_adapter: RandomAdapter, publish: Publish
) -> None:
    manifest = await publish(random_adapter(65), user="rotten-early")
    sound = await sealed_object(stack, manifest)
    path = put_on_disk(stack, manifest.version_id, sound)
    rot(path)

    assert (await ask(engine, manifest.version_id)).status_code == 200
    assert path.read_bytes() == sound
    assert text_of(await ask(engine, resident[0])) == resident[1]


async def test_a_file_that_rots_once_it_was_opened_harms_nobody(
    stack: Stack,
    engine: httpx.AsyncClient,
    engine_process: Revivable,
    resident: tuple[str, str],
    random_adapter: RandomAdapter,
    publish: Publish,
) -> None:
    """What was verified is what the workers read: the file is of no concern any more."""
    manifest = await publish(random_adapter(62), user="rotten")
    path = cached(stack, manifest.version_id) / SEALED_FILE
    with frozen(engine_core(engine_process)):
        asking = asyncio.create_task(ask(engine, manifest.version_id))
        while not path.exists():
            assert not asking.done()
            await asyncio.sleep(0.02)
        rot(path)
    answer = text_of(await asking)

    assert answer != text_of(await ask(engine, "base"))
    assert text_of(await ask(engine, resident[0])) == resident[1]
    assert (await engine.post(f"/lorry/adapters/{manifest.version_id}/evict", json={})).status_code == 200
    assert text_of(await ask(engine, manifest.version_id)) == answer
    assert path.read_bytes() == await sealed_object(stack, manifest)


async def test_without_a_registry_resident_adapters_serve_on_and_others_are_refused(
    registry: Revivable,
    engine: httpx.AsyncClient,
    resident: tuple[str, str],
    random_adapter: RandomAdapter,
    publish: Publish,
) -> None:
    cold = (await publish(random_adapter(63), user="cold")).version_id
    async with registry.killed():
        names = [cold, resident[0], "base", cold, resident[0]]
        answers = await asyncio.gather(*(ask(engine, name) for name in names))

        assert [answer.status_code for answer in answers] == [503, 200, 200, 503, 200]
        assert "registry did not answer" in reason_of(answers[0])
        assert text_of(answers[1]) == text_of(answers[4]) == resident[1]
        assert (await engine.get("/lorry/ready")).status_code == 200

    await asyncio.sleep(REFUSAL_SECONDS)
    assert (await ask(engine, cold)).status_code == 200


async def test_what_lies_on_disk_is_not_served_while_nobody_confirms_it(
    stack: Stack,
    registry: Revivable,
    engine: httpx.AsyncClient,
    resident: tuple[str, str],
    random_adapter: RandomAdapter,
    publish: Publish,
) -> None:
    manifest = await publish(random_adapter(64), user="unconfirmed")
    version_id = manifest.version_id
    put_on_disk(stack, version_id, await sealed_object(stack, manifest))
    with frozen([registry.process]):
        answers = await asyncio.gather(ask(engine, version_id), ask(engine, resident[0]))

    assert answers[0].status_code == 503
    assert text_of(answers[1]) == resident[1]


async def test_the_counters_agree_with_what_happened(engine: httpx.AsyncClient, before: Counter[str]) -> None:
    assert await failed_loads(engine) - before == {
        "damaged": 3,  # one each: who asked meanwhile shared the load
        "registry_unavailable": 2,
    }
