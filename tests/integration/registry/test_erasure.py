"""Erasing a version and an owner: tombstones, no byte left, no key left, engines asked first."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from kit.database import Database
from kit.settings import StorageSettings
from kit.storage import ObjectStorage
from registry.app import create_app
from registry.client import RegistryClient, draft_from_directory
from registry.errors import Leased, NotServable, RegistryUnavailable, VersionNotFound
from registry.lifecycle.erasure import Eraser
from registry.lifecycle.remains import Remains
from registry.lifecycle.schemas import Erasure
from registry.manifest import AdapterRef, Owner
from registry.settings import RegistrySettings
from tests.support.adapters import BASE, BASE_CONFIG, write_adapter
from tests.support.registry_server import OWNER, TOKEN, serving
from tests.support.steering import (
    ADAPTER,
    aliases,
    audit,
    lease,
    let_urls_lapse,
    make_live,
    publish,
    publish_many,
    rows,
    states,
)

BOB = Owner(tenant="default", user="bob")


async def keys(storage: ObjectStorage) -> list[str]:
    return [found.key for found in await storage.list("")]


async def test_an_erased_version_is_a_tombstone_of_ids_and_times(
    client: RegistryClient, database: Database, storage: ObjectStorage, tmp_path: Path
) -> None:
    a, b = await publish_many(client, tmp_path, 2)
    await make_live(client, a, b)
    await client.lifecycle.attach_evaluation(b, {"secret": 1})
    left = [key for key in await keys(storage) if b not in key]
    await let_urls_lapse(database)
    tombstone = await client.lifecycle.erase_version(b, why="asked for")
    assert (tombstone.version_id, tombstone.version) == (b, 2)
    assert tombstone.removed_at is not None
    assert tombstone.removed_at >= tombstone.erased_at
    assert await client.lifecycle.erase_version(b, why="again") == tombstone
    assert await keys(storage) == left
    assert await aliases(database) == {"previous": a}
    with pytest.raises(NotServable):
        await client.resolve(AdapterRef.parse("users/ann@2"))
    (row,) = await rows(
        database,
        "select manifest, signature, validation, reason from adapter_version where version_id = :id",
        id=b,
    )
    assert row == (None, None, None, None)
    assert await rows(database, "select count(*) from evaluation_report") == [(0,)]
    assert [entry[1:] for entry in await audit(database, b) if "eras" in entry[1]] == [
        ("erase live", b, None, "asked for"),
        ("erased", "ready", "erased", "asked for"),
    ]
    with pytest.raises(VersionNotFound):
        await client.lifecycle.erase_version("v" + "0" * 32, why="x")


async def test_no_answer_that_holds_content_names_or_free_text_is_kept_for_a_repeated_request(
    registry_url: str, client: RegistryClient, database: Database, tmp_path: Path
) -> None:
    a, b = await publish_many(client, tmp_path, 2)
    headers = {"authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(timeout=60, base_url=registry_url, headers=headers) as http:
        for version_id in (a, b):
            path = f"/v1/versions/{version_id}/complete"
            assert (await http.post(path, headers={"idempotency-key": version_id})).status_code == 200
        assert await rows(database, "select count(*) from idempotent_request") == [(0,)]
        await client.lifecycle.attach_evaluation(a, {"secret": 1})
        for path, body in (
            (f"/v1/versions/{a}/evaluations", {"report": {"secret": 1}}),
            (f"/v1/versions/{b}/suspend", {"why": "because of ann"}),
            ("/v1/tenants/default/users/ann/suspend", {"why": "because of ann"}),
            ("/v1/tenants/default/users/ann/erase", {"why": "asked for"}),
            ("/v1/maintenance/reconcile", {}),
        ):
            assert (await http.post(path, json=body, headers={"idempotency-key": "k"})).status_code == 200
            assert await rows(database, "select count(*) from idempotent_request") == [(0,)]


@pytest.mark.parametrize("state", ["pending", "suspended", "retired"])
async def test_a_version_is_erased_from_any_state(
    client: RegistryClient, database: Database, storage: ObjectStorage, tmp_path: Path, state: str
) -> None:
    if state == "pending":
        folder = write_adapter(tmp_path / "p")
        publication = await client.begin(draft_from_directory(folder, owner=OWNER, base=BASE))
        version_id = publication.version_id
        await client.upload(publication, folder)
        assert await keys(storage)
    else:
        version_id = await publish(client, tmp_path)
        steer = client.lifecycle.suspend_version if state == "suspended" else client.lifecycle.retire_version
        await steer(version_id, why="x")
    await client.lifecycle.erase_version(version_id, why="asked for")
    assert await keys(storage) == []
    assert await states(database) == {version_id: "erased"}
    with pytest.raises(NotServable):
        await client.complete(version_id)


async def test_a_version_that_an_engine_answers_with_is_erased_only_by_force(
    client: RegistryClient, database: Database, storage: ObjectStorage, tmp_path: Path
) -> None:
    version_id = await publish(client, tmp_path)
    await lease(database, version_id, leases=2)
    with pytest.raises(Leased) as caught:
        await client.lifecycle.erase_version(version_id, why="asked for")
    assert caught.value.details == {"versions": [version_id]}
    with pytest.raises(Leased):
        await client.lifecycle.erase_owner(OWNER, why="asked for")
    assert await states(database) == {version_id: "ready"}
    assert await keys(storage)
    await client.lifecycle.erase_version(version_id, why="asked for", force=True)
    assert await states(database) == {version_id: "erased"}


@pytest.mark.parametrize("how", ["idle", "lapsed"])
async def test_an_engine_that_is_idle_or_silent_does_not_hold_back_an_erasure(
    client: RegistryClient, database: Database, tmp_path: Path, how: str
) -> None:
    version_id = await publish(client, tmp_path)
    await lease(database, version_id, leases=0 if how == "idle" else 3, silent_seconds=0 if how == "idle" else 3600)
    assert (await client.lifecycle.erase_version(version_id, why="asked for")).erased_at
    assert await states(database) == {version_id: "erased"}


async def test_erasing_an_owner_leaves_no_byte_and_no_key_and_nobody_else_is_touched(
    client: RegistryClient, database: Database, storage: ObjectStorage, tmp_path: Path
) -> None:
    versions = await publish_many(client, tmp_path, 3)
    other = await publish(client, tmp_path, adapter="style")
    bobs = await publish(client, tmp_path, owner=BOB)
    await make_live(client, *versions)
    await client.lifecycle.retire_version(other, why="old")
    await let_urls_lapse(database)
    await client.lifecycle.erase_version(versions[0], why="first")
    erased = await client.lifecycle.erase_owner(OWNER, why="asked for")
    assert (erased.erased, erased.already, erased.data_key_destroyed) == (3, 1, True)
    assert all("bob" in key for key in await keys(storage))
    assert await states(database) == {**dict.fromkeys([*versions, other], "erased"), bobs: "ready"}
    assert await rows(
        database, "select count(*) from adapter_version where state = 'erased' and removed_at is null"
    ) == [(0,)]
    assert await rows(
        database, "select user_id, wrapped is null, destroyed_at is not null from data_key order by user_id"
    ) == [("ann", True, True), ("bob", False, False)]
    again = await client.lifecycle.erase_owner(OWNER, why="asked for")
    assert (again.erased, again.already, again.data_key_destroyed) == (0, 4, False)
    trail = (await client.lifecycle.audit_of(OWNER)).entries
    assert [(entry.action, entry.after, entry.why) for entry in trail if entry.subject] == [
        ("erase-owner", "3 versions", "asked for"),
        ("data-key-destroyed", None, "asked for"),
    ]
    assert {entry.version_id for entry in trail if entry.after == "erased"} == {*versions, other}


async def test_an_erased_owner_may_come_back_under_another_key(
    client: RegistryClient, database: Database, tmp_path: Path
) -> None:
    await publish(client, tmp_path)
    await client.lifecycle.erase_owner(OWNER, why="asked for")
    version_id = await publish(client, tmp_path)
    await make_live(client, version_id)
    assert (await client.resolve(AdapterRef.parse("users/ann"))).manifest.version == 2
    assert await rows(database, "select count(*), count(wrapped) from data_key") == [(2, 1)]


async def test_without_an_object_store_an_erased_version_is_unreadable_at_once_and_its_bytes_go_later(
    registry_settings: RegistrySettings,
    client: RegistryClient,
    database: Database,
    storage: ObjectStorage,
    tmp_path: Path,
) -> None:
    version_id = await publish(client, tmp_path)
    away = registry_settings.model_copy(update={"s3_endpoint_url": "http://127.0.0.1:9", "s3_attempts": 1})
    async with serving(create_app(away)) as url, RegistryClient(url=url, token=TOKEN) as lost:
        with pytest.raises(RegistryUnavailable):
            await lost.lifecycle.erase_version(version_id, why="asked for")
    with pytest.raises(NotServable):
        await client.grant(version_id)
    assert await keys(storage)
    await let_urls_lapse(database)
    tombstone = await client.lifecycle.erase_version(version_id, why="asked for")
    assert tombstone.removed_at is not None
    assert tombstone.removed_at > tombstone.erased_at
    assert await keys(storage) == []
    assert await rows(database, "select count(*) from audit where action = 'erased'") == [(1,)]


async def test_what_comes_back_while_an_upload_url_lapses_is_not_taken_for_gone(
    registry_settings: RegistrySettings,
    client: RegistryClient,
    database: Database,
    storage: ObjectStorage,
    tmp_path: Path,
) -> None:
    version_id = await publish(client, tmp_path)
    (key,) = await keys(storage)

    class Lapsing(Remains):
        async def remove(self, owner: Owner, version_id: str) -> int:
            removed = await super().remove(owner, version_id)
            await storage.put(key, b"put back at the last moment")
            await let_urls_lapse(database)
            return removed

    remains = Lapsing(storage, upload_seconds=registry_settings.registry_upload_seconds)
    eraser = Eraser(database, remains, lease_seconds=30)
    assert (await eraser.erase_version(version_id, Erasure(why="asked for"), actor="test")).removed_at is None
    assert (await client.lifecycle.erase_version(version_id, why="again")).removed_at is not None
    assert await keys(storage) == []


async def test_an_owner_of_whom_nothing_is_known_has_nothing_to_erase(
    client: RegistryClient, database: Database
) -> None:
    erased = await client.lifecycle.erase_owner(Owner(tenant="default", user="nobody"), why="asked for")
    assert (erased.erased, erased.already, erased.data_key_destroyed) == (0, 0, False)
    assert await rows(database, "select count(*) from audit where action = 'erase-owner'") == [(0,)]


async def test_what_a_tenant_shares_is_erased_like_a_users(
    client: RegistryClient, storage: ObjectStorage, tmp_path: Path
) -> None:
    shared = Owner(tenant="default", user="~")
    await publish(client, tmp_path, owner=shared)
    assert (await client.lifecycle.erase_owner(shared, why="asked for")).erased == 1
    assert await keys(storage) == []


async def test_erasing_and_moving_an_alias_at_once_never_leaves_an_alias_to_a_tombstone(
    client: RegistryClient, database: Database, tmp_path: Path
) -> None:
    for attempt in range(3):
        a, b = await publish_many(client, tmp_path / str(attempt), 2)
        held = await client.get_alias(OWNER, ADAPTER, "live")
        await asyncio.gather(
            client.move_alias(OWNER, ADAPTER, "live", version_id=a, expected_version_id=held),
            client.lifecycle.erase_version(a, why="asked for"),
            client.lifecycle.erase_owner(OWNER, why="asked for") if attempt == 2 else asyncio.sleep(0),
            return_exceptions=True,
        )
        dangling = "select count(*) from alias join adapter_version v using (version_id) where v.state = 'erased'"
        assert await rows(database, dangling) == [(0,)]
        await client.lifecycle.erase_version(b, why="asked for")


@pytest.fixture
async def versioned(seaweed_settings: StorageSettings) -> AsyncIterator[StorageSettings]:
    """A bucket that keeps every version of an object, on which someone has switched versioning on."""
    settings = seaweed_settings.model_copy(update={"s3_bucket": f"versioned-{uuid.uuid4().hex[:12]}"})
    storage = ObjectStorage(settings)
    await storage.create_bucket()
    await enable_versioning(storage)
    yield settings
    storage.close()


async def enable_versioning(storage: ObjectStorage) -> None:
    client = storage._client
    await asyncio.to_thread(
        client.put_bucket_versioning,
        Bucket=storage._bucket.name,
        VersioningConfiguration={"Status": "Enabled"},
    )


async def stored_versions(storage: ObjectStorage) -> list[str]:
    page = await asyncio.to_thread(storage._client.list_object_versions, Bucket=storage._bucket.name)
    return [each["Key"] for each in page.get("Versions", [])]


@pytest.mark.parametrize("whole", [False, True])
async def test_in_a_bucket_with_versioning_no_version_of_an_object_survives_an_erasure(
    registry_settings: RegistrySettings, versioned: StorageSettings, tmp_path: Path, whole: bool
) -> None:
    settings = registry_settings.model_copy(update={"s3_bucket": versioned.s3_bucket, "s3_prefix": ""})
    storage = ObjectStorage(versioned)
    async with serving(create_app(settings)) as url, RegistryClient(url=url, token=TOKEN, actor="test") as client:
        await client.register_base(BASE, config=BASE_CONFIG)
        version_id = await publish(client, tmp_path)
        for found in await storage.list("tenants/"):
            data = await storage.get(found.key)
            await storage.put(found.key, data + b"x")  # somebody who can write to the bucket
            await storage.put(found.key, data)
        assert len(await stored_versions(storage)) >= 3
        if whole:
            await client.lifecycle.erase_owner(OWNER, why="asked for")
        else:
            await client.lifecycle.erase_version(version_id, why="asked for")
    assert [key for key in await stored_versions(storage) if version_id in key] == []
    storage.close()
