"""Published content under its keys: who can read it, until when, and what damage does."""

from __future__ import annotations

import random
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from kit.database import Database
from kit.errors import LorryError, MasterKeyInvalid
from kit.master_keys import KeyFile
from kit.sealing import HEADER_BYTES
from kit.storage import ObjectStorage
from registry.app import create_app
from registry.artifact.draft import draft_from_directory
from registry.client import RegistryClient
from registry.errors import DigestMismatch, NotServable
from registry.manifest import SHARED, WEIGHTS_FILE, Owner
from registry.publishing.layout import version_key
from registry.publishing.schemas import Preference
from registry.sealing.data_keys import DataKeys
from registry.sealing.rotation import forget_master_key, rewrap_data_keys
from registry.settings import RegistrySettings
from tests.support.adapters import BASE, BASE_CONFIG, write_adapter
from tests.support.registry_server import OWNER, TOKEN, serving
from tests.support.steering import publish, rows
from tests.support.waiting import until

BOB, TEAM = (Owner(tenant="default", user=user) for user in ("bob", SHARED))


async def download(client: RegistryClient, version_id: str, directory: Path) -> bytes:
    await client.download(await client.grant(version_id), directory)
    return (directory / WEIGHTS_FILE).read_bytes()


async def test_every_owner_has_a_key_and_every_version_its_own(
    client: RegistryClient, database: Database, tmp_path: Path
) -> None:
    owners = (OWNER, OWNER, BOB, TEAM)
    versions = [await publish(client, tmp_path, seed=seed, owner=owner) for seed, owner in enumerate(owners)]
    assert await rows(database, "select count(distinct data_key_id) from adapter_version") == [(3,)]
    grants = [await client.grant(version_id) for version_id in versions]
    assert len({grant.content_key for grant in grants}) == 4
    swapped = grants[0].model_copy(update={"url": grants[1].url, "sealed_bytes": grants[1].sealed_bytes})
    with pytest.raises(DigestMismatch, match="another key"):
        await client.download(swapped, tmp_path / "swapped")
    assert not (tmp_path / "swapped").exists()


async def test_a_bit_that_flips_in_the_bucket_is_refused_wherever_it_is(
    client: RegistryClient, storage: ObjectStorage, tmp_path: Path
) -> None:
    version_id = await publish(client, tmp_path)
    key = version_key(OWNER, version_id)
    sealed = await storage.get(key)
    places = [*range(0, HEADER_BYTES, 9), *random.Random(1).sample(range(HEADER_BYTES, len(sealed)), 20)]
    for place in [*places, len(sealed) - 1]:
        await storage.put(key, sealed[:place] + bytes([sealed[place] ^ 0x10]) + sealed[place + 1 :])
        with pytest.raises(DigestMismatch):
            await download(client, version_id, tmp_path / "damaged")
        assert not (tmp_path / "damaged").exists()
    await storage.put(key, sealed)
    await download(client, version_id, tmp_path / "whole")


async def test_a_running_registry_serves_on_through_a_rotation(
    client: RegistryClient,
    database: Database,
    storage: ObjectStorage,
    registry_settings: RegistrySettings,
    tmp_path: Path,
) -> None:
    first = await publish(client, tmp_path)
    weights = await download(client, first, tmp_path / "before")
    etag = (await storage.head(version_key(OWNER, first))).etag
    assert registry_settings.master_key_file is not None
    file = KeyFile(registry_settings.master_key_file)
    old, new = await file.primary_id(), file.add_primary()
    second = await publish(client, tmp_path, seed=1, owner=BOB)  # by the registry that was started with the old key
    await rewrap_data_keys(database, file, actor="tester")
    await forget_master_key(database, file, old, actor="tester")
    assert await download(client, first, tmp_path / "after") == weights
    await download(client, second, tmp_path / "second")
    assert (await storage.head(version_key(OWNER, first))).etag == etag
    assert await rows(database, "select distinct master_key_id from data_key") == [(new,)]


async def test_a_destroyed_key_makes_every_copy_unreadable(
    client: RegistryClient,
    database: Database,
    storage: ObjectStorage,
    registry_settings: RegistrySettings,
    tmp_path: Path,
) -> None:
    """Somebody has copied the bucket, and keeps it; the key is all that is destroyed."""
    mine, theirs = await publish(client, tmp_path), await publish(client, tmp_path, owner=BOB)
    grant = await client.grant(mine)
    await client.download(grant, tmp_path / "before")
    assert registry_settings.master_key_file is not None
    data_keys = DataKeys(database, KeyFile(registry_settings.master_key_file))
    await data_keys.destroy(OWNER, actor="tester", why="asked to")
    with pytest.raises(NotServable):
        await client.grant(mine)
    await download(client, theirs, tmp_path / "theirs")
    assert (await storage.head(version_key(OWNER, mine))).size_bytes == grant.sealed_bytes
    for left in (await data_keys.ensure(BOB), await data_keys.ensure(OWNER)):
        with pytest.raises(DigestMismatch, match="another key"):
            await client.download(grant.model_copy(update={"content_key": left.content_key(mine)}), tmp_path / "read")
        assert not (tmp_path / "read").exists()


async def test_without_its_master_key_a_registry_neither_starts_nor_reads(
    registry_settings: RegistrySettings, client: RegistryClient, tmp_path: Path
) -> None:
    version_id = await publish(client, tmp_path)
    keyless = create_app(registry_settings.model_copy(update={"master_key_file": None}))
    with pytest.raises(MasterKeyInvalid, match="lorry keys init"):
        async with keyless.router.lifespan_context(keyless):
            pass
    other = KeyFile.create(tmp_path / "other-keys.json")
    settings = registry_settings.model_copy(update={"master_key_file": other._path})
    async with serving(create_app(settings)) as url, RegistryClient(url=url, token=TOKEN) as elsewhere:
        with pytest.raises(LorryError, match="has no master key"):
            await elsewhere.grant(version_id)


async def test_a_host_that_was_not_given_a_new_master_key_says_so_and_one_that_was_reads_on(
    registry_settings: RegistrySettings, client: RegistryClient, database: Database, tmp_path: Path
) -> None:
    version_id = await publish(client, tmp_path)
    file = KeyFile(registry_settings.master_key_file)  # type: ignore[arg-type]  # the fixture sets it
    forgotten, copied = tmp_path / "forgotten.json", tmp_path / "copied.json"
    shutil.copy2(file._path, forgotten)
    added = file.add_next()
    shutil.copy2(file._path, copied)
    assert file.add_primary() == added
    await rewrap_data_keys(database, file, actor="tester")
    headers = {"authorization": f"Bearer {TOKEN}"}
    for path, status in ((forgotten, 503), (copied, 200)):
        settings = registry_settings.model_copy(update={"master_key_file": path})
        async with (
            serving(create_app(settings)) as url,
            httpx.AsyncClient(timeout=60, base_url=url, headers=headers) as http,
        ):
            ready, grant = await http.get("/readyz"), await http.get(f"/v1/versions/{version_id}/grant")
        assert (ready.status_code, grant.status_code) == (status, status)
        if status == 503:
            assert added in ready.json()["detail"]
            assert ready.json()["type"] == grant.json()["type"] == "urn:lorry:problem:master-key-missing"


@pytest.fixture
async def versioned_client(registry_settings: RegistrySettings) -> AsyncIterator[RegistryClient]:
    """A client of a registry whose bucket keeps versions."""
    settings = registry_settings.model_copy(update={"s3_bucket": "lorry-versioned-registry"})
    storage = ObjectStorage(settings)
    await storage.create_bucket()
    await storage.keep_versions()
    async with serving(create_app(settings)) as url, RegistryClient(url=url, token=TOKEN) as client:
        await client.register_base(BASE, config=BASE_CONFIG)
        yield client
    await storage.erase("")


@pytest.mark.parametrize("preference", list(Preference))
async def test_a_bucket_that_keeps_versions_keeps_nothing_in_the_open(
    versioned_client: RegistryClient, registry_settings: RegistrySettings, tmp_path: Path, preference: Preference
) -> None:
    storage = ObjectStorage(registry_settings.model_copy(update={"s3_bucket": "lorry-versioned-registry"}))
    directory = write_adapter(tmp_path / "a")
    draft = draft_from_directory(directory, owner=OWNER, base=BASE)
    publication = await versioned_client.begin(draft, preference=preference)
    await versioned_client.upload(publication, directory)
    await versioned_client.complete(publication.version_id)
    await download(versioned_client, publication.version_id, tmp_path / "b")

    async def nothing_incoming() -> bool:
        return await storage.count_versions("incoming/") == 0

    await until(nothing_incoming)
    assert await storage.count_versions("tenants/") == 1
    await versioned_client.lifecycle.erase_version(publication.version_id, why="asked to")
    assert await storage.count_versions("") == 0
