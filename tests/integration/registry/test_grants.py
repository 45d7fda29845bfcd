"""Who gets what it takes to read a version, and that nobody else does."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr

from kit.database import Database
from kit.presigning import Presigner
from kit.storage import ObjectStorage
from registry.app import create_app
from registry.client import Grant, RegistryClient, Verifier, draft_from_directory
from registry.client.engines import Presence, Registration
from registry.errors import (
    AdapterInvalid,
    ArtifactMissing,
    BaseModelMismatch,
    DataKeyDestroyed,
    DigestMismatch,
    EngineNotFound,
    Forbidden,
    LimitReached,
    NotServable,
    SignatureInvalid,
    VersionNotFound,
)
from registry.lifecycle.policy import TenantPolicy
from registry.manifest import DEFAULT_ADAPTER, BaseIdentity, Draft, Manifest, Owner
from registry.sealing.data_keys import destroy_data_key
from registry.settings import RegistrySettings
from tests.support.adapters import BASE, BASE_CONFIG, write_adapter
from tests.support.registry_server import OWNER, TOKEN, serving
from tests.support.versions import execute

ENGINE_TOKEN = "a-token-of-engines-only"


def draft(directory: Path, *, owner: Owner = OWNER, adapter: str = DEFAULT_ADAPTER) -> Draft:
    return draft_from_directory(directory, owner=owner, adapter=adapter, base=BASE)


async def publish(client: RegistryClient, directory: Path) -> Manifest:
    return await client.publish(directory, draft=draft(directory))


async def test_a_grant_opens_one_version_and_says_until_when(client: RegistryClient, tmp_path: Path) -> None:
    manifest = await publish(client, write_adapter(tmp_path / "a"))
    grant = await client.grant(manifest.version_id)
    assert grant.manifest == manifest
    assert len(grant.content_key) == 32
    assert grant.expires_at > manifest.created_at
    await client.download(grant, tmp_path / "b")


async def test_the_key_of_one_version_opens_no_other(client: RegistryClient, tmp_path: Path) -> None:
    one = await client.grant((await publish(client, write_adapter(tmp_path / "a"))).version_id)
    two = await client.grant((await publish(client, write_adapter(tmp_path / "b", seed=1))).version_id)
    assert one.content_key != two.content_key
    mixed = Grant.model_construct(**{**dict(two), "content_key": one.content_key})
    with pytest.raises(DigestMismatch, match="another key"):
        await client.read_back(mixed)
    swapped = Grant.model_construct(**{**dict(two), "url": one.url})
    with pytest.raises(DigestMismatch):
        await client.download(swapped, tmp_path / "c")
    assert not (tmp_path / "c").exists()


async def test_neither_key_nor_url_is_shown_logged_or_kept(
    client: RegistryClient, registry_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    manifest = await publish(client, write_adapter(tmp_path / "a"))
    grant = await client.grant(manifest.version_id)
    secret = grant.model_dump_json().split('"content_key":"')[1].split('"')[0]
    assert secret not in repr(grant)
    assert grant.url not in repr(grant)
    assert secret not in caplog.text
    async with httpx.AsyncClient(timeout=60, headers={"authorization": f"Bearer {TOKEN}"}) as http:
        answer = await http.get(f"{registry_url}/v1/versions/{manifest.version_id}/grant")
    assert answer.headers["cache-control"] == "no-store"
    assert secret in answer.text


async def test_an_engine_gets_grants_and_may_not_publish(registry_settings: RegistrySettings, tmp_path: Path) -> None:
    settings = registry_settings.model_copy(update={"registry_engine_token": SecretStr(ENGINE_TOKEN)})
    async with (
        serving(create_app(settings)) as url,
        RegistryClient(url=url, token=TOKEN) as operator,
        RegistryClient(url=url, token=ENGINE_TOKEN) as engine,
    ):
        await operator.register_base(BASE, config=BASE_CONFIG)
        manifest = await publish(operator, write_adapter(tmp_path / "a"))
        me = Presence(engine_id="engine-1", incarnation="1" * 32)
        await register(operator, me)
        await engine.download(await engine.grant(manifest.version_id, engine=me), tmp_path / "b")
        (holder,) = await operator.engines.holders(manifest.version_id)
        assert (holder.engine_id, holder.state) == ("engine-1", "alive")
        with pytest.raises(Forbidden):
            await publish(engine, write_adapter(tmp_path / "c", seed=1))
        with pytest.raises(Forbidden):
            await engine.get_validation(manifest.version_id)


async def register(client: RegistryClient, engine: Presence, *, base: BaseIdentity = BASE) -> None:
    await client.engines.register(engine.engine_id, Registration(incarnation=engine.incarnation, base=base))


async def test_only_a_living_engine_of_that_base_which_shows_its_secret_gets_a_grant(
    registry_settings: RegistrySettings, database: Database, tmp_path: Path
) -> None:
    settings = registry_settings.model_copy(update={"registry_engine_token": SecretStr(ENGINE_TOKEN)})
    async with (
        serving(create_app(settings)) as url,
        RegistryClient(url=url, token=TOKEN) as operator,
        RegistryClient(url=url, token=ENGINE_TOKEN) as engine,
    ):
        await operator.register_base(BASE, config=BASE_CONFIG)
        version_id = (await publish(operator, write_adapter(tmp_path / "a"))).version_id
        me = Presence(engine_id="engine-1", incarnation="1" * 32)
        with pytest.raises(Forbidden, match="x-lorry-engine"):
            await engine.grant(version_id)
        with pytest.raises(EngineNotFound):
            await engine.grant(version_id, engine=me)
        await register(operator, me)
        with pytest.raises(EngineNotFound):
            await engine.grant(version_id, engine=me.model_copy(update={"incarnation": "2" * 32}))
        other = Presence(engine_id="engine-2", incarnation="3" * 32)
        await register(operator, other, base=BASE.model_copy(update={"weights_sha256": "9" * 64}))
        with pytest.raises(BaseModelMismatch, match="weights_sha256"):
            await engine.grant(version_id, engine=other)
        await engine.grant(version_id, engine=me)
        await execute(database, "update engine set last_seen_at = now() - interval '61 seconds'")
        with pytest.raises(EngineNotFound):
            await engine.grant(version_id, engine=me)
        assert (await operator.grant(version_id)).manifest.version_id == version_id


async def test_a_host_whose_clock_is_slow_hands_out_urls_that_live(
    registry_settings: RegistrySettings, client: RegistryClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made, prepare = [], Presigner.__init__

    def slow(presigner: Presigner, bucket_url: str, *, region: str) -> None:
        made.append(presigner)
        prepare(presigner, bucket_url, region=region, now=lambda: datetime.now(UTC) - timedelta(hours=3))

    monkeypatch.setattr(Presigner, "__init__", slow)
    async with serving(create_app(registry_settings)) as url, RegistryClient(url=url, token=TOKEN) as through:
        manifest = await publish(through, write_adapter(tmp_path / "a"))
        await through.download(await through.grant(manifest.version_id), tmp_path / "b")
        again = write_adapter(tmp_path / "c", seed=1)
        await client.begin(draft(again))
        await publish(through, again)  # begun before
    assert made


async def test_what_may_not_be_served_is_not_granted(client: RegistryClient, tmp_path: Path) -> None:
    manifest = await publish(client, write_adapter(tmp_path / "a"))
    pending = await client.begin(draft(write_adapter(tmp_path / "b", seed=1)))
    for version_id in (manifest.version_id, pending.version_id):
        if version_id == manifest.version_id:
            await client.lifecycle.suspend(OWNER, why="test")
        with pytest.raises(NotServable):
            await client.grant(version_id)
    await client.lifecycle.resume(OWNER, why="test")
    await client.grant(manifest.version_id)
    with pytest.raises(VersionNotFound):
        await client.grant("v" + "0" * 32)


async def test_a_destroyed_key_makes_a_version_unreadable_and_unfinished_ones_stay_so(
    client: RegistryClient, database: Database, tmp_path: Path
) -> None:
    manifest = await publish(client, write_adapter(tmp_path / "a"))
    other = write_adapter(tmp_path / "b", seed=1)
    unfinished = await client.begin(draft(other))
    await client.upload(unfinished, other)
    async with database.transaction() as session:
        await destroy_data_key(session, OWNER, actor="test", why="test")
    for call in (client.grant(manifest.version_id), client.complete(unfinished.version_id)):
        with pytest.raises(DataKeyDestroyed):
            await call
    fresh = await publish(client, write_adapter(tmp_path / "c", seed=2))
    await client.download(await client.grant(fresh.version_id), tmp_path / "d")


@pytest.mark.parametrize("damage", ["flipped", "truncated", "appended", "gone", "another's"])
async def test_damage_in_the_store_is_found_by_reading_back(
    client: RegistryClient, storage: ObjectStorage, tmp_path: Path, damage: str
) -> None:
    manifest = await publish(client, write_adapter(tmp_path / "a"))
    (found,) = await storage.list("tenants/")
    sealed = await storage.get(found.key)
    grant = await client.grant(manifest.version_id)
    if damage == "gone":
        await storage.delete(found.key)
        with pytest.raises(ArtifactMissing):
            await client.read_back(grant)
        return
    other = await publish(client, write_adapter(tmp_path / "b", seed=1))
    (theirs,) = [each.key for each in await storage.list("tenants/") if other.version_id in each.key]
    half = len(sealed) // 2
    flipped = sealed[:half] + bytes([sealed[half] ^ 128]) + sealed[half + 1 :]
    damaged = {"flipped": flipped, "truncated": sealed[:-20], "appended": sealed + b"\0" * 20}
    await storage.put(found.key, damaged.get(damage) or await storage.get(theirs))
    with pytest.raises(DigestMismatch):
        await client.read_back(grant)
    with pytest.raises(DigestMismatch):
        await client.download(grant, tmp_path / "c")
    assert not (tmp_path / "c").exists()
    assert await client.complete(manifest.version_id) == manifest  # a ready version is never touched again
    assert len(await storage.list("tenants/")) == 2


async def test_a_registry_with_a_key_signs_and_a_tenant_may_insist(
    registry_settings: RegistrySettings, tmp_path: Path
) -> None:
    key, path = ec.generate_private_key(ec.SECP256R1()), tmp_path / "private.pem"
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.write_bytes(key.private_bytes(pem, pkcs8, serialization.NoEncryption()))
    settings = registry_settings.model_copy(update={"signing_private_key_file": path})
    async with serving(create_app(registry_settings)) as url, RegistryClient(url=url, token=TOKEN) as client:
        await client.register_base(BASE, config=BASE_CONFIG)
        plain = await publish(client, write_adapter(tmp_path / "a"))
        assert (await client.grant(plain.version_id)).signature is None
        await client.lifecycle.put_policy(OWNER.tenant, TenantPolicy(require_signature=True))
        with pytest.raises(SignatureInvalid, match="no signing key"):
            await publish(client, write_adapter(tmp_path / "b", seed=1))
    async with serving(create_app(settings)) as url, RegistryClient(url=url, token=TOKEN) as client:
        signed = await publish(client, write_adapter(tmp_path / "b", seed=1))
        grant = await client.grant(signed.version_id)
        Verifier(key.public_key()).verify(grant.signature, signed)
        with pytest.raises(SignatureInvalid):
            Verifier(key.public_key()).verify(grant.signature, plain)


async def test_a_tenants_limits_are_kept(client: RegistryClient, tmp_path: Path) -> None:
    first = write_adapter(tmp_path / "a")
    policy = TenantPolicy(max_rank=4, max_adapters=1, max_versions_per_adapter=2, max_adapter_bytes=20_000)
    await client.lifecycle.put_policy(OWNER.tenant, policy)
    await publish(client, first)
    with pytest.raises(AdapterInvalid, match="rank 8 is above") as caught:
        await publish(client, write_adapter(tmp_path / "b", rank=8))
    assert caught.value.field == "lora.rank"
    with pytest.raises(LimitReached, match="1 adapters"):
        await client.publish(first, draft=draft(first, adapter="second"))
    await publish(client, write_adapter(tmp_path / "c", seed=1))
    with pytest.raises(LimitReached, match="2 versions"):
        await publish(client, write_adapter(tmp_path / "d", seed=2))
    await publish(client, first)  # what is there already needs no room
    await client.lifecycle.put_policy(OWNER.tenant, TenantPolicy(max_adapter_bytes=1000))
    with pytest.raises(AdapterInvalid, match="bytes together"):
        await publish(client, write_adapter(tmp_path / "e", seed=3))
    other = Owner(tenant="other", user="ann")
    await client.publish(first, draft=draft(first, owner=other))


async def test_racing_publishers_do_not_get_past_a_limit(client: RegistryClient, tmp_path: Path) -> None:
    await client.lifecycle.put_policy(OWNER.tenant, TenantPolicy(max_adapters=3))
    directory = write_adapter(tmp_path / "a")
    wanted = [draft(directory, owner=Owner(tenant=OWNER.tenant, user=f"u{number}")) for number in range(8)]
    outcomes = await asyncio.gather(*[client.publish(directory, draft=each) for each in wanted], return_exceptions=True)
    assert sum(isinstance(outcome, Manifest) for outcome in outcomes) == 3
    assert sum(isinstance(outcome, LimitReached) for outcome in outcomes) == 5


async def test_a_scan_is_recorded_where_it_is_switched_on(registry_settings: RegistrySettings, tmp_path: Path) -> None:
    settings = registry_settings.model_copy(update={"adapter_scan": "adaptersentry"})
    async with serving(create_app(settings)) as url, RegistryClient(url=url, token=TOKEN) as client:
        await client.register_base(BASE, config=BASE_CONFIG)
        manifest = await publish(client, write_adapter(tmp_path / "a"))
        report = (await client.get_validation(manifest.version_id)).report
    assert report is not None
    assert report.scan is not None
    assert report.scan["scanner"] == "adaptersentry"
    assert report.scan["action"] in {"allow", "review", "block"}
    assert report.checks[-1] == "scan"
