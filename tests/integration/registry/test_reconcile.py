"""Reconcile: whatever a crash or a careless hand left is found, put right, and then not found again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kit.database import Database
from kit.storage import ObjectStorage
from registry.app import create_app
from registry.client import RegistryClient, draft_from_directory
from registry.errors import InvalidReference, NotServable, RegistryError, RegistryUnavailable, TooMuchMissing
from registry.lifecycle.upkeep.schemas import Finding, Reconcile
from registry.manifest import AdapterRef
from registry.settings import RegistrySettings
from tests.support.adapters import BASE, BASE_CONFIG, write_adapter
from tests.support.registry_server import OWNER, TOKEN, serving
from tests.support.steering import audit, let_urls_lapse, make_live, publish, publish_many, reconcile, rows, states

FIRST = AdapterRef.parse("users/ann@1")
NOBODY = "v" + "0" * 32


@pytest.fixture
async def hasty(registry_settings: RegistrySettings) -> AsyncIterator[RegistryClient]:
    """A client of a registry that gives a publish up at once."""
    settings = registry_settings.model_copy(update={"registry_abandoned_seconds": 0})
    async with serving(create_app(settings)) as url, RegistryClient(url=url, token=TOKEN, actor="test") as client:
        await client.register_base(BASE, config=BASE_CONFIG)
        yield client


def short(findings: list[Finding]) -> list[tuple[str, str, bool]]:
    return [(finding.kind, finding.action, finding.done) for finding in findings]


async def begin(client: RegistryClient, directory: Path, *, upload: bool, seed: int = 0) -> str:
    folder = write_adapter(directory / f"begun-{seed}", seed=seed)
    publication = await client.begin(draft_from_directory(folder, owner=OWNER, base=BASE))
    if upload:
        await client.upload(publication, folder)
    return publication.version_id


async def keys(storage: ObjectStorage, part: str = "") -> list[str]:
    return [found.key for found in await storage.list("") if part in found.key]


async def test_in_a_registry_in_order_nothing_is_found(
    hasty: RegistryClient, storage: ObjectStorage, tmp_path: Path
) -> None:
    versions = await publish_many(hasty, tmp_path, 3)
    await make_live(hasty, versions[0])
    await hasty.lifecycle.suspend_version(versions[1], why="x")
    await hasty.lifecycle.retire_version(versions[2], why="x")
    before = await keys(storage)
    assert await reconcile(hasty) == []
    assert await keys(storage) == before


async def test_a_publish_whose_publisher_died_after_the_upload_is_finished(
    hasty: RegistryClient, database: Database, storage: ObjectStorage, tmp_path: Path
) -> None:
    version_id = await begin(hasty, tmp_path, upload=True)
    before = await keys(storage)
    assert short(await reconcile(hasty, dry_run=True)) == [("half-done publish", "finish or reject", False)]
    assert await states(database) == {version_id: "pending"}
    assert await keys(storage) == before
    assert short(await reconcile(hasty)) == [("half-done publish", "finish", True)]
    assert (await hasty.resolve(FIRST)).manifest.version_id == version_id
    assert await reconcile(hasty) == []


async def test_a_publish_whose_publisher_died_before_the_upload_is_rejected(
    hasty: RegistryClient, database: Database, storage: ObjectStorage, tmp_path: Path
) -> None:
    version_id = await begin(hasty, tmp_path, upload=False)
    assert short(await reconcile(hasty)) == [("half-done publish", "reject", True)]
    assert await states(database) == {version_id: "rejected"}
    assert (await audit(database, version_id))[-1][:4] == ("test", "rejected", "pending", "rejected")
    assert await keys(storage) == []
    assert await reconcile(hasty) == []
    again = await publish(hasty, tmp_path)  # the same content, as a new version
    assert again != version_id
    assert (await states(database))[again] == "ready"


async def test_a_publish_whose_key_was_destroyed_is_rejected(
    hasty: RegistryClient, database: Database, storage: ObjectStorage, tmp_path: Path
) -> None:
    version_id = await begin(hasty, tmp_path, upload=True)
    await rows(database, "update data_key set wrapped = null, master_key_id = null, destroyed_at = now()")
    assert short(await reconcile(hasty)) == [("half-done publish", "reject", True)]
    assert await states(database) == {version_id: "rejected"}
    assert await keys(storage) == []
    await publish(hasty, tmp_path)


async def test_an_outage_rejects_nothing(
    registry_settings: RegistrySettings, hasty: RegistryClient, database: Database, tmp_path: Path
) -> None:
    version_id = await begin(hasty, tmp_path, upload=True)
    away = {"registry_abandoned_seconds": 0, "s3_endpoint_url": "http://127.0.0.1:9", "s3_attempts": 1}
    settings = registry_settings.model_copy(update=away)
    async with serving(create_app(settings)) as url, RegistryClient(url=url, token=TOKEN) as lost:
        with pytest.raises(RegistryUnavailable):
            await reconcile(lost)
    assert await states(database) == {version_id: "pending"}
    assert short(await reconcile(hasty)) == [("half-done publish", "finish", True)]


async def test_a_publish_that_goes_on_is_left_alone(
    client: RegistryClient, database: Database, storage: ObjectStorage, tmp_path: Path
) -> None:
    version_id = await begin(client, tmp_path, upload=True)
    before = await keys(storage)
    assert await reconcile(client) == []
    assert await keys(storage) == before
    await client.complete(version_id)
    assert await states(database) == {version_id: "ready"}


async def test_a_clock_set_back_neither_gives_up_a_publish_early_nor_keeps_it_for_ever(
    client: RegistryClient, hasty: RegistryClient, database: Database, tmp_path: Path
) -> None:
    """What a publisher's or a registry's host took for the time when it began is not asked."""
    version_id = await begin(client, tmp_path, upload=False)
    for years in (-30, 30):
        await rows(database, "alter table adapter_version disable trigger user")
        await rows(
            database, "update adapter_version set created_at = now() + make_interval(years => :years)", years=years
        )
        await rows(database, "alter table adapter_version enable trigger user")
        assert await reconcile(client) == []
    assert short(await reconcile(hasty)) == [("half-done publish", "reject", True)]
    assert await states(database) == {version_id: "rejected"}


async def test_what_a_killed_erasure_left_is_removed(
    hasty: RegistryClient, database: Database, storage: ObjectStorage, tmp_path: Path
) -> None:
    version_id = await publish(hasty, tmp_path)
    await rows(database, "update adapter_version set state = 'erased', manifest = null")
    await let_urls_lapse(database)
    assert await keys(storage, version_id)
    assert short(await reconcile(hasty, dry_run=True))[0] == ("bytes of a dead version", "remove", False)
    assert await keys(storage, version_id)
    assert short(await reconcile(hasty)) == [("bytes of a dead version", "remove", True)]
    assert await keys(storage) == []
    assert await rows(database, "select removed_at is not null from adapter_version") == [(True,)]
    assert await reconcile(hasty) == []


async def test_bytes_that_reach_the_store_after_an_erasure_are_found(
    hasty: RegistryClient, storage: ObjectStorage, tmp_path: Path
) -> None:
    version_id = await publish(hasty, tmp_path)
    (key, *_) = await keys(storage, version_id)
    await hasty.lifecycle.erase_version(version_id, why="asked for")
    await storage.put(key, b"late")
    await storage.put(f"incoming/{version_id}/adapter_model.safetensors", b"late")
    assert short(await reconcile(hasty, dry_run=True))[0] == ("bytes of a dead version", "remove", False)
    assert short(await reconcile(hasty)) == [("bytes of a dead version", "remove", True)]
    assert await keys(storage) == []
    assert await reconcile(hasty) == []


async def test_uploads_that_belong_to_no_publish_are_dropped(
    hasty: RegistryClient, client: RegistryClient, storage: ObjectStorage, tmp_path: Path
) -> None:
    version_id = await publish(hasty, tmp_path)
    pending = await begin(client, tmp_path, upload=False, seed=7)
    for number in range(3):
        await storage.put(f"incoming/{version_id}/file-{number}", b"left over")
    await storage.put(f"incoming/{pending}/adapter_model.safetensors", b"still coming")
    assert len(await reconcile(client, dry_run=True)) == 3
    assert set(short(await reconcile(client))) == {("incoming leftover", "remove", True)}
    assert await keys(storage, "incoming/") == [f"incoming/{pending}/adapter_model.safetensors"]
    assert await reconcile(client) == []


async def test_uploads_in_parts_that_nobody_goes_on_with_are_aborted(
    client: RegistryClient, storage: ObjectStorage, tmp_path: Path
) -> None:
    version_id = await publish(client, tmp_path)
    pending = await begin(client, tmp_path, upload=False, seed=7)
    running = await storage.multipart.begin(f"incoming/{pending}/adapter_model.safetensors")
    await storage.multipart.put_part(running, 1, b"x" * (5 << 20))
    for key in (f"incoming/{version_id}/adapter_model.safetensors", f"tenants/default/users/ann/versions/{version_id}"):
        stale = await storage.multipart.begin(key)
        await storage.multipart.put_part(stale, 1, b"x" * (5 << 20))
    assert len(await reconcile(client, dry_run=True)) == 2
    assert short(await reconcile(client)) == [("unfinished upload", "abort", True)] * 2
    assert [upload.id for upload in await storage.multipart.list_unfinished()] == [running.id]
    assert await reconcile(client) == []


async def test_objects_without_rows_are_shown_and_removed_only_when_told_to(
    client: RegistryClient, storage: ObjectStorage, tmp_path: Path
) -> None:
    await publish(client, tmp_path)
    strays = [f"tenants/default/users/ann/versions/{NOBODY}", f"incoming/{NOBODY}/x", "incoming/odd"]
    for key in strays:
        await storage.put(key, b"?")
    await storage.put("tenants/default/users/ann/transcripts/1", b"another room's")
    kept = await keys(storage)
    found = await reconcile(client)
    assert {finding.key for finding in found} == set(strays)
    assert {(finding.kind, finding.done) for finding in found} == {("object without a row", False)}
    assert await keys(storage) == kept
    assert len(await reconcile(client, remove_unknown=True, dry_run=True)) == 3
    assert await keys(storage) == kept
    assert len(await reconcile(client, remove_unknown=True)) == 3
    assert await keys(storage) == [key for key in kept if key not in strays]
    assert await reconcile(client) == []


@pytest.mark.parametrize("harm", ["missing", "truncated", "longer"])
async def test_a_version_without_its_whole_object_is_suspended_until_it_is_whole_again(
    client: RegistryClient, database: Database, storage: ObjectStorage, tmp_path: Path, harm: str
) -> None:
    a, b = await publish_many(client, tmp_path, 2)
    await make_live(client, a)
    (key,) = await keys(storage, a)
    data = await storage.get(key)
    await (
        storage.delete(key) if harm == "missing" else storage.put(key, data[:-1] if harm == "truncated" else data * 2)
    )
    assert short(await reconcile(client, dry_run=True)) == [("row without a whole object", "suspend", False)]
    assert set((await states(database)).values()) == {"ready"}
    assert short(await reconcile(client)) == [("row without a whole object", "suspend", True)]
    assert await states(database) == {a: "suspended", b: "ready"}
    with pytest.raises(NotServable):
        await client.resolve(FIRST)
    assert [(f.action, f.done) for f in await reconcile(client)] == [("publish it again, or erase it", False)]
    await storage.put(key, data)
    await client.lifecycle.resume_version(a, why="restored")
    assert await reconcile(client) == []
    assert (await client.resolve(FIRST)).manifest.version_id == a


async def test_a_wrong_bucket_does_not_suspend_everybody(
    registry_settings: RegistrySettings, client: RegistryClient, database: Database, tmp_path: Path
) -> None:
    await publish_many(client, tmp_path, 5)
    settings = registry_settings.model_copy(update={"s3_prefix": "somewhere-else"})
    async with serving(create_app(settings)) as url, RegistryClient(url=url, token=TOKEN, actor="test") as lost:
        for limit in (1, 10):
            with pytest.raises(TooMuchMissing):
                await reconcile(lost, limit=limit)
        assert set((await states(database)).values()) == {"ready"}
        assert len(await reconcile(lost, limit=10, dry_run=True)) == 5
        await reconcile(lost, limit=10, force=True)
    assert set((await states(database)).values()) == {"suspended"}
    for version_id in await states(database):
        await client.lifecycle.resume_version(version_id, why="it was the wrong bucket")


async def test_passes_beside_each_other_and_beside_publishers_lose_nothing(
    hasty: RegistryClient, database: Database, storage: ObjectStorage, tmp_path: Path
) -> None:
    """The registry gives every publish up at once, so a publisher may be overtaken; it publishes again."""

    async def insist(seed: int) -> str:
        for _ in range(20):
            try:
                return await publish(hasty, tmp_path, seed=seed)
            except RegistryError:
                await asyncio.sleep(0.05)
        raise AssertionError("the publisher was overtaken twenty times")

    done: Any
    done, *_ = await asyncio.gather(
        asyncio.gather(*[insist(seed) for seed in range(4)]), *[reconcile(hasty) for _ in range(3)]
    )
    await reconcile(hasty)
    assert await reconcile(hasty) == []
    found = await states(database)
    assert {found[version_id] for version_id in done} == {"ready"}
    assert set(found.values()) <= {"ready", "rejected"}
    assert await keys(storage, "incoming/") == []


@pytest.mark.parametrize("body", [{"limit": 0}, {"limit": 1001}, {"surprise": 1}, {"cursor": "x" * 2001}])
async def test_a_bad_request_is_refused_by_field(registry_url: str, body: dict[str, Any]) -> None:
    import httpx

    headers = {"authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(timeout=60, base_url=registry_url, headers=headers) as http:
        answer = await http.post("/v1/maintenance/reconcile", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == f"body.{next(iter(body))}"


async def test_a_cursor_of_another_pass_is_refused(client: RegistryClient) -> None:
    first = await client.lifecycle.reconcile(Reconcile())
    from registry.lifecycle.upkeep.schemas import Retain

    with pytest.raises(InvalidReference):
        await client.lifecycle.retain(Retain(cursor=first.next_cursor))
