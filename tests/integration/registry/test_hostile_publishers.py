"""What token holders may try while others erase, reconcile or change a policy: nobody is harmed but themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from kit.canonical import sha256_bytes
from kit.database import Database
from kit.storage import ObjectStorage
from registry.app import create_app
from registry.client import RegistryClient, draft_from_directory
from registry.errors import GateClosed, InvalidReference, SignatureInvalid
from registry.lifecycle.policy import TenantPolicy
from registry.manifest import WEIGHTS_FILE, Draft
from registry.publishing.publisher import Publisher
from registry.sealing.data_keys import DataKeys
from registry.services import kept
from registry.settings import RegistrySettings
from tests.support.adapters import BASE, BASE_CONFIG, lora_shapes, safetensors_bytes, write_adapter
from tests.support.registry_server import OWNER, TOKEN, serving
from tests.support.steering import ADAPTER, let_urls_lapse, publish, reconcile, retain, rows, states

HEADERS = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}


@dataclass(frozen=True, kw_only=True)
class Service:
    """A registry in this process, of which a test may hold single steps."""

    app: FastAPI
    client: RegistryClient
    http: httpx.AsyncClient


@pytest.fixture
async def service(registry_settings: RegistrySettings) -> AsyncIterator[Service]:
    settings = registry_settings.model_copy(update={"registry_abandoned_seconds": 3600})
    app = create_app(settings)
    async with (
        serving(app) as url,
        RegistryClient(url=url, token=TOKEN, actor="test") as client,
        httpx.AsyncClient(base_url=url, headers=HEADERS, timeout=60) as http,
    ):
        await client.register_base(BASE, config=BASE_CONFIG)
        yield Service(app=app, client=client, http=http)


def made(directory: Path, seed: int, **more: Any) -> tuple[Path, Draft]:
    folder = write_adapter(directory / f"made-{seed}", seed=seed)
    return folder, draft_from_directory(folder, owner=OWNER, base=BASE, **more)


async def keys(storage: ObjectStorage) -> list[str]:
    return [found.key for found in await storage.list("")]


async def put(upload: dict[str, Any], data: bytes) -> int:
    async with httpx.AsyncClient(timeout=30) as http:
        return (await http.put(upload["url"], headers=upload["headers"], content=data)).status_code


async def test_a_completion_that_was_overtaken_by_an_erasure_leaves_no_byte_and_no_answer(
    service: Service, database: Database, storage: ObjectStorage, tmp_path: Path
) -> None:
    folder, draft = made(tmp_path, 1, evaluation={"secret": "SECRET"})
    publication = await service.client.begin(draft)
    await service.client.upload(publication, folder)
    publisher, at, go = kept(service.app, Publisher), asyncio.Event(), asyncio.Event()
    judge = publisher.judge

    async def held(*args: Any, **more: Any) -> None:
        await judge(*args, **more)
        at.set()
        await go.wait()

    publisher.judge = held
    path = f"/v1/versions/{publication.version_id}/complete"
    completing = asyncio.create_task(service.http.post(path, headers={"idempotency-key": "k"}))
    await at.wait()
    await service.client.lifecycle.erase_version(publication.version_id, why="asked for")
    go.set()
    assert (await completing).status_code == 409
    assert await keys(storage) == []


async def test_a_completion_is_not_answered_again_after_the_version_was_erased(
    service: Service, database: Database, tmp_path: Path
) -> None:
    folder, draft = made(tmp_path, 1, evaluation={"secret": "SECRET"})
    publication = await service.client.begin(draft)
    await service.client.upload(publication, folder)
    publisher, at, go = kept(service.app, Publisher), asyncio.Event(), asyncio.Event()
    complete = publisher.complete

    async def held(*args: Any, **more: Any) -> Any:
        manifest = await complete(*args, **more)
        at.set()
        await go.wait()
        return manifest

    publisher.complete = held
    path, again = f"/v1/versions/{publication.version_id}/complete", {"idempotency-key": "k"}
    completing = asyncio.create_task(service.http.post(path, headers=again))
    await at.wait()
    await service.client.lifecycle.erase_version(publication.version_id, why="asked for")
    go.set()
    assert (await completing).status_code == 200
    publisher.complete = complete
    answer = await service.http.post(path, headers=again)
    assert (answer.status_code, "SECRET" in answer.text) == (409, False)
    assert await rows(database, "select count(*) from idempotent_request") == [(0,)]


async def test_a_tombstone_says_that_its_bytes_are_gone_only_when_no_upload_url_can_bring_them_back(
    service: Service, database: Database, storage: ObjectStorage, tmp_path: Path
) -> None:
    folder, draft = made(tmp_path, 1)
    upload = (await service.http.post("/v1/versions", content=draft.model_dump_json())).json()
    weights = (folder / WEIGHTS_FILE).read_bytes()
    assert await put(upload["upload"], weights) == 200
    await service.client.complete(upload["version_id"])
    tombstone = await service.client.lifecycle.erase_version(upload["version_id"], why="asked for")
    assert tombstone.removed_at is None
    assert await put(upload["upload"], weights) == 200  # the store knows nothing of the erasure
    assert await keys(storage)
    await reconcile(service.client)
    assert await keys(storage) == []
    assert await rows(database, "select removed_at from adapter_version") == [(None,)]
    await let_urls_lapse(database)
    assert await reconcile(service.client) == []
    assert await rows(database, "select removed_at is not null from adapter_version") == [(True,)]


async def test_a_publish_that_was_begun_again_is_not_given_up(
    service: Service, database: Database, tmp_path: Path
) -> None:
    folder, draft = made(tmp_path, 1)
    first = await service.client.begin(draft)
    await let_urls_lapse(database)
    second = await service.client.begin(draft)
    assert second.version_id == first.version_id
    assert await reconcile(service.client) == []
    await service.client.upload(second, folder)
    await service.client.complete(second.version_id)
    assert await states(database) == {first.version_id: "ready"}


async def test_a_publish_that_is_begun_while_its_owner_is_erased_goes_on_under_the_next_key(
    service: Service, database: Database, tmp_path: Path
) -> None:
    await publish(service.client, tmp_path)
    data_keys, at, go = kept(service.app, DataKeys), asyncio.Event(), asyncio.Event()
    unwrap = data_keys.unwrap

    async def held(key: Any) -> bytes:
        secret: bytes = await unwrap(key)
        at.set()
        await go.wait()
        return secret

    data_keys.unwrap = held
    folder, draft = made(tmp_path, 2)
    beginning = asyncio.create_task(service.client.begin(draft))
    await at.wait()
    data_keys.unwrap = unwrap
    await service.client.lifecycle.erase_owner(OWNER, why="asked for")
    go.set()
    publication = await beginning
    await service.client.upload(publication, folder)
    await service.client.complete(publication.version_id)
    orphans = "select count(*) from adapter_version v join data_key k on k.id = v.data_key_id"
    assert await rows(database, f"{orphans} where k.destroyed_at is not null and v.state <> 'erased'") == [(0,)]
    assert (await states(database))[publication.version_id] == "ready"


async def test_nobody_can_use_up_an_adapters_numbers(client: RegistryClient, tmp_path: Path) -> None:
    folder, draft = made(tmp_path, 1, version=2_147_483_647)
    with pytest.raises(InvalidReference) as caught:
        await client.publish(folder, draft=draft)
    assert caught.value.field == "version"
    assert (await client.publish(folder, draft=draft.model_copy(update={"version": 1_000_000}))).version == 1_000_000
    folder, draft = made(tmp_path, 2)
    assert (await client.publish(folder, draft=draft)).version == 1_000_001


async def test_a_policy_that_came_after_the_beginning_holds_at_the_end(
    client: RegistryClient, database: Database, tmp_path: Path
) -> None:
    early = await publish(client, tmp_path, seed=1)
    folder, draft = made(tmp_path, 2)
    publication = await client.begin(draft)
    await client.upload(publication, folder)
    await client.lifecycle.put_policy("default", TenantPolicy(require_signature=True))
    with pytest.raises(SignatureInvalid):
        await client.complete(publication.version_id)
    assert (await states(database))[publication.version_id] == "uploaded"
    with pytest.raises(GateClosed, match="not signed"):
        await client.move_alias(OWNER, ADAPTER, "live", version_id=early, expected_version_id=None)


async def test_one_tenants_stored_number_stops_no_pass(client: RegistryClient, database: Database) -> None:
    """Such a number is refused today; an earlier release may have stored it."""
    await rows(
        database, """insert into tenant_policy (tenant, policy) values ('default', '{"keep_versions": 1e30}'::json)"""
    )
    await rows(
        database, "update tenant_policy set policy = cast(:policy as json)", policy=f'{{"keep_versions": {10**30}}}'
    )
    await rows(database, "insert into adapter (tenant, user_id, name) values ('default', 'ann', 'profile')")
    assert await retain(client) == []


async def test_neither_the_audit_trail_nor_a_suspension_keeps_what_an_erased_owner_sent(
    client: RegistryClient, registry_url: str, database: Database, tmp_path: Path
) -> None:
    weights = safetensors_bytes({**lora_shapes(), "John Doe has HIV": (1, 1)})
    draft = made(tmp_path, 3)[1].model_dump(mode="json")
    for file in draft["files"]:
        if file["path"] == WEIGHTS_FILE:
            file["size_bytes"], file["sha256"] = len(weights), sha256_bytes(weights)
    async with httpx.AsyncClient(timeout=60, base_url=registry_url, headers=HEADERS) as http:
        begun = (await http.post("/v1/versions", json=draft)).json()
        await put(begun["upload"], weights)
        refused = await http.post(f"/v1/versions/{begun['version_id']}/complete")
    assert refused.status_code == 422
    assert "HIV" in refused.text  # who publishes is told
    await client.lifecycle.suspend(OWNER, why="because of what John said")
    await client.lifecycle.erase_owner(OWNER, why="asked for")
    assert await rows(database, "select count(*) from audit where coalesce(why, '') like '%HIV%'") == [(0,)]
    assert await rows(database, "select actor, why from suspension") == [("", "")]


async def test_another_rooms_upload_in_parts_is_left_alone(client: RegistryClient, storage: ObjectStorage) -> None:
    theirs = await storage.multipart.begin("tenants/default/transcripts/big.bin")
    strange = await storage.multipart.begin(f"tenants/default/users/ann/versions/v{'0' * 32}")
    for upload in (theirs, strange):
        await storage.multipart.put_part(upload, 1, b"x" * (5 << 20))
    assert [finding.done for finding in await reconcile(client)] == [False]
    assert len(await storage.multipart.list_unfinished("tenants/")) == 2
    assert [finding.done for finding in await reconcile(client, remove_unknown=True)] == [True]
    assert [upload.id for upload in await storage.multipart.list_unfinished("tenants/")] == [theirs.id]
