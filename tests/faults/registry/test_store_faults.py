"""An object store that fails at any one request of a publish or a download: nothing lost, nothing half-visible."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from kit.errors import LorryError
from kit.storage import ObjectStorage
from registry.app import create_app
from registry.client import RegistryClient, draft_from_directory
from registry.errors import NotServable
from registry.manifest import WEIGHTS_FILE, AdapterRef, Draft, Manifest
from registry.publishing.schemas import Preference
from registry.settings import RegistrySettings
from tests.support.adapters import BASE, BASE_CONFIG, write_adapter
from tests.support.faulty_s3 import FaultyS3, faulty_s3
from tests.support.registry_server import OWNER, TOKEN, serving
from tests.support.waiting import until

FIRST = AdapterRef.parse("users/ann@1")
pytestmark = pytest.mark.faults
Fault = Callable[[FaultyS3, int], object]
FAULTS: dict[str, Fault] = {
    "500": lambda faulty, skip: faulty.answer("", status=500, times=1, skip=skip),
    "503": lambda faulty, skip: faulty.answer("", status=503, times=1, skip=skip),
    "refused": lambda faulty, skip: faulty.refuse("", times=1, skip=skip),
    "answer lost": lambda faulty, skip: faulty.lose_answer("", times=1, skip=skip),
    "silence": lambda faulty, skip: faulty.stall("", seconds=5, times=1, skip=skip),
    "truncated": lambda faulty, skip: faulty.truncate("", at_bytes=100, times=1, skip=skip),
}


@pytest.fixture
async def faulty(registry_settings: RegistrySettings) -> AsyncIterator[FaultyS3]:
    async with faulty_s3(registry_settings) as proxy:
        yield proxy


@pytest.fixture
async def through(registry_settings: RegistrySettings, faulty: FaultyS3) -> AsyncIterator[RegistryClient]:
    """A client of a registry whose store, for itself and for those it gives URLs to, is behind the proxy."""
    async with reaching(registry_settings, faulty, timeout_seconds=2.0) as client:
        yield client


@asynccontextmanager
async def reaching(
    settings: RegistrySettings, faulty: FaultyS3, *, timeout_seconds: float
) -> AsyncIterator[RegistryClient]:
    """Yield a client of a registry behind the proxy that waits so long for its store."""
    settings = settings.model_copy(update={"s3_endpoint_url": faulty.url, "s3_timeout_seconds": timeout_seconds})
    async with (
        serving(create_app(settings)) as url,
        RegistryClient(url=url, token=TOKEN, timeout_seconds=60, complete_timeout_seconds=120) as client,
    ):
        await client.register_base(BASE, config=BASE_CONFIG)
        yield client


async def publish(client: RegistryClient, directory: Path, draft: Draft, preference: Preference) -> Manifest:
    publication = await client.begin(draft, preference=preference)
    await client.upload(publication, directory)
    return await client.complete(publication.version_id)


async def settle(storage: ObjectStorage) -> list[str]:
    """Return the keys that are left, once what is removed behind the back of requests is gone."""
    for _ in range(300):
        keys = [found.key for found in await storage.list("")]
        if not any(key.startswith("incoming/") for key in keys):
            break
        await asyncio.sleep(0.1)
    return keys


@pytest.mark.parametrize("preference", list(Preference))
@pytest.mark.parametrize("fault", list(FAULTS))
async def test_a_publish_survives_one_fault_at_any_request(
    through: RegistryClient,
    faulty: FaultyS3,
    storage: ObjectStorage,
    tmp_path: Path,
    fault: str,
    preference: Preference,
) -> None:
    """Each time round another user publishes, and the next request fails, until none of theirs does."""
    for step in range(12):
        owner = OWNER.model_copy(update={"user": f"ann{step}"})
        directory = write_adapter(tmp_path / f"a{step}", seed=step)
        draft = draft_from_directory(directory, owner=owner, base=BASE)
        before = len(faulty.requests)
        rule = FAULTS[fault](faulty, step)
        first = AdapterRef.parse(f"users/{owner.user}@1")
        refusals = list[LorryError]()
        while len(refusals) < 3:
            try:
                manifest = await publish(through, directory, draft, preference)
                break
            except LorryError as exc:
                refusals.append(exc)
                with pytest.raises(LorryError):
                    await through.resolve(first)
        asked = faulty.requests[before:]
        assert all(refusal.status_code in {409, 422, 503} for refusal in refusals), (step, asked, refusals)
        assert len(refusals) < 3, f"never published: {asked}"
        faulty.heal()
        assert manifest.version == 1
        await through.download(await through.grant(manifest.version_id), tmp_path / f"b{step}")
        expected = (directory / WEIGHTS_FILE).read_bytes()
        assert (tmp_path / f"b{step}" / WEIGHTS_FILE).read_bytes() == expected
        keys = await settle(storage)
        assert [key for key in keys if owner.user + "/" in key] == [
            f"tenants/default/users/{owner.user}/versions/{manifest.version_id}"
        ]
        if not rule.hits:  # type: ignore[attr-defined]
            assert step >= 2
            return
    raise AssertionError("a publish takes more than twelve requests")


async def test_while_the_store_is_away_publishing_ends_in_bounded_time_and_nothing_resolves(
    through: RegistryClient, faulty: FaultyS3, storage: ObjectStorage, tmp_path: Path
) -> None:
    directory = write_adapter(tmp_path / "a")
    draft = draft_from_directory(directory, owner=OWNER, base=BASE)
    faulty.refuse("")
    began = time.monotonic()
    with pytest.raises(LorryError) as caught:
        await through.publish(directory, draft=draft)
    assert caught.value.status_code == 503
    assert time.monotonic() - began < 60
    with pytest.raises(NotServable):
        await through.resolve(FIRST)
    faulty.heal()
    manifest = await through.publish(directory, draft=draft)
    assert manifest.version == 1
    assert len(await settle(storage)) == 1


@pytest.mark.parametrize("fault", ["truncated", "a flipped bit", "500", "refused"])
async def test_a_download_is_whole_or_absent(
    through: RegistryClient, faulty: FaultyS3, tmp_path: Path, fault: str
) -> None:
    directory = write_adapter(tmp_path / "a")
    manifest = await through.publish(directory, draft=draft_from_directory(directory, owner=OWNER, base=BASE))
    size = sum(file.size_bytes for file in manifest.files)
    damage: dict[str, Callable[[int], object]] = {
        "truncated": lambda at: faulty.truncate("GET .*versions", at_bytes=at),
        "a flipped bit": lambda at: faulty.corrupt("GET .*versions", at_bytes=at),
        "500": lambda at: faulty.answer("GET .*versions", status=500),
        "refused": lambda at: faulty.refuse("GET .*versions"),
    }
    for at in (0, 10, 80, size // 2, size - 1):
        damage[fault](at)
        with pytest.raises(LorryError):
            await through.download(await through.grant(manifest.version_id), tmp_path / "b")
        assert not (tmp_path / "b").exists()
        faulty.heal()
    await through.download(await through.grant(manifest.version_id), tmp_path / "b")
    assert (tmp_path / "b" / WEIGHTS_FILE).read_bytes() == (directory / WEIGHTS_FILE).read_bytes()


async def test_a_registry_waits_for_no_store_to_resolve(
    registry_settings: RegistrySettings, faulty: FaultyS3, tmp_path: Path
) -> None:
    async with reaching(registry_settings, faulty, timeout_seconds=600.0) as through:
        directory = write_adapter(tmp_path / "a")
        await through.publish(directory, draft=draft_from_directory(directory, owner=OWNER, base=BASE))
        silence = faulty.stall("", seconds=600)
        uploads = [
            asyncio.create_task(
                through.publish(
                    write_adapter(tmp_path / f"a{seed}", seed=seed),
                    draft=draft_from_directory(write_adapter(tmp_path / f"a{seed}", seed=seed), owner=OWNER, base=BASE),
                )
            )
            for seed in range(1, 5)
        ]
        await until(lambda: silence.hits >= len(uploads))
        async with asyncio.timeout(60):  # who waited for the store would be told nothing for ten minutes
            for _ in range(20):
                await through.resolve(FIRST)
        for upload in uploads:
            upload.cancel()
        await asyncio.gather(*uploads, return_exceptions=True)
        faulty.heal()
        await faulty.close()
