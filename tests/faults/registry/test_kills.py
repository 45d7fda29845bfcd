"""kill -9, between any two steps of a publish, leaves nothing resolvable and a publish that can be run again."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from kit.storage import ObjectStorage
from registry.app import create_app
from registry.client import RegistryClient, draft_from_directory
from registry.errors import ArtifactMissing, NotServable, RegistryUnavailable
from registry.manifest import WEIGHTS_FILE, AdapterRef
from registry.publishing import parts
from registry.publishing.schemas import PartsUpload, Preference
from registry.settings import RegistrySettings
from tests.support.adapters import BASE, empty_weights, lora_shapes, wide_base, write_adapter
from tests.support.ports import reserved_port
from tests.support.registry_server import OWNER, TOKEN, register_base_when_ready, serving
from tests.support.waiting import until

pytestmark = pytest.mark.faults
DRIVER = Path(__file__).with_name("driver.py")
FIRST = AdapterRef.parse("users/ann@1")
WIDE, WIDE_CONFIG = wide_base(16384)


async def start(role: str, point: str, arguments: dict[str, Any]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(sys.executable, str(DRIVER), role, point, json.dumps(arguments))


async def run_publisher(url: str, directory: Path, point: str, *, preference: Preference, **more: Any) -> int:
    given = {
        "url": url,
        "token": TOKEN,
        "directory": str(directory),
        "base": BASE.model_dump(),
        "preference": preference,
        **more,
    }
    process = await start("publisher", point, given)
    return await asyncio.wait_for(process.wait(), 300)


async def assert_nothing_resolves(client: RegistryClient) -> str:
    """Return the id of the one version there is."""
    with pytest.raises(NotServable):
        await client.resolve(FIRST)
    (version,) = await client.list_versions(OWNER, "profile")
    with pytest.raises(NotServable):
        await client.get_version(version.version_id)
    return version.version_id


async def assert_publishes(client: RegistryClient, storage: ObjectStorage, directory: Path) -> str:
    """Run the publish again and check that the outcome is whole and nothing is left over."""
    draft = draft_from_directory(directory, owner=OWNER, base=BASE)
    manifest = await client.publish(directory, draft=draft)
    assert manifest.version == 1
    await client.download(await client.resolve(FIRST), directory.parent / "downloaded")
    await client.complete(manifest.version_id)  # has what a killed process had not removed removed
    await until_empty(storage, "incoming/")
    assert len(await storage.list("tenants/")) == 1
    assert await storage.multipart.list_unfinished() == []
    return manifest.version_id


async def until_empty(storage: ObjectStorage, prefix: str) -> None:
    """Uploads are removed behind the back of requests."""

    async def is_empty() -> bool:
        return not await storage.list(prefix)

    await until(is_empty)


@pytest.mark.parametrize("preference", list(Preference))
@pytest.mark.parametrize("point", ["begin", "upload"])
async def test_a_publisher_killed_between_two_steps_leaves_nothing_resolvable(
    registry_url: str,
    client: RegistryClient,
    storage: ObjectStorage,
    tmp_path: Path,
    point: str,
    preference: Preference,
) -> None:
    directory = write_adapter(tmp_path / "a")
    assert await run_publisher(registry_url, directory, point, preference=preference) == -9
    version_id = await assert_nothing_resolves(client)
    assert await assert_publishes(client, storage, directory) == version_id


async def test_a_publisher_killed_amid_its_parts_goes_on_where_it_was(
    registry_settings: RegistrySettings, storage: ObjectStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "AT_ONCE_BYTES", 6 << 20)  # of the registry, which runs in this process
    monkeypatch.setattr(parts, "PART_BYTES", 5 << 20)
    directory = write_adapter(tmp_path / "a", rank=16)
    (directory / WEIGHTS_FILE).write_bytes(empty_weights(lora_shapes(rank=16, hidden=16384)))
    assert (directory / WEIGHTS_FILE).stat().st_size > 5 * (5 << 20)
    async with serving(create_app(registry_settings)) as url, RegistryClient(url=url, token=TOKEN) as client:
        await client.register_base(WIDE, config=WIDE_CONFIG)
        base = WIDE.model_dump()
        assert await run_publisher(url, directory, "some parts", preference=Preference.SEALED, base=base) == -9
        version_id = await assert_nothing_resolves(client)
        (upload,) = await storage.multipart.list_unfinished()
        there = [part.number for part in await storage.multipart.list_parts(upload)]
        assert there == [1, 2, 3, 4]
        draft = draft_from_directory(directory, owner=OWNER, base=WIDE)
        publication = await client.begin(draft)
        assert isinstance(publication.upload, PartsUpload)
        assert list(publication.upload.arrived) == there
        with pytest.raises(ArtifactMissing, match="parts of"):
            await client.complete(version_id)
        assert (await client.publish(directory, draft=draft)).version_id == version_id
        await client.download(await client.grant(version_id), tmp_path / "downloaded")
        await until_empty(storage, "incoming/")
        assert await storage.multipart.list_unfinished() == []


@pytest.mark.parametrize("delay_seconds", [0.0, 0.02, 0.05, 0.1])
async def test_a_publisher_killed_while_it_waits_for_complete_can_run_again(
    registry_url: str, client: RegistryClient, storage: ObjectStorage, tmp_path: Path, delay_seconds: float
) -> None:
    directory = write_adapter(tmp_path / "a")
    given = {"delay_seconds": delay_seconds, "preference": Preference.SEALED}
    code = await run_publisher(registry_url, directory, "during complete", **given)
    assert code in {0, -9}  # the registry may be quicker
    await assert_publishes(client, storage, directory)


async def test_a_publisher_killed_after_complete_has_published(
    registry_url: str, client: RegistryClient, storage: ObjectStorage, tmp_path: Path
) -> None:
    directory = write_adapter(tmp_path / "a")
    assert await run_publisher(registry_url, directory, "complete", preference=Preference.OPEN) == -9
    before = (await client.resolve(FIRST)).manifest
    assert await assert_publishes(client, storage, directory) == before.version_id


SEALED = [
    "before receive 1",
    "after receive 1",
    "after judge 1",
    "before mark_ready 1",
]
OPEN = [*SEALED[:-1], "after mark_uploaded 1", "before put 1", "after put 1", "after place 1", "before mark_ready 1"]
SERVER_POINTS = [
    *((point, Preference.SEALED) for point in SEALED),
    *((point, Preference.OPEN) for point in OPEN),
]


def plain(value: Any) -> Any:
    """Return a setting as JSON can hold it."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return str(value) if isinstance(value, Path) else value


async def complete_on_dying_server(
    settings: RegistrySettings, point: str, directory: Path, *, preference: Preference
) -> None:
    """Publish to a server that kills itself at `point`, and see it die."""
    with reserved_port() as port:
        values = {name: plain(value) for name, value in (settings.model_dump() | {"registry_port": port}).items()}
        process = await start("server", point, {"settings": values})
        async with RegistryClient(url=f"http://127.0.0.1:{port}", token=TOKEN) as client:
            await register_base_when_ready(client)
            draft = draft_from_directory(directory, owner=OWNER, base=BASE)
            publication = await client.begin(draft, preference=preference)
            await client.upload(publication, directory)
            with pytest.raises(RegistryUnavailable):
                await client.complete(publication.version_id)
        assert await asyncio.wait_for(process.wait(), 300) == -9


@pytest.mark.parametrize(("point", "preference"), SERVER_POINTS)
async def test_a_registry_killed_within_complete_leaves_nothing_resolvable(
    registry_settings: RegistrySettings, storage: ObjectStorage, tmp_path: Path, point: str, preference: Preference
) -> None:
    directory = write_adapter(tmp_path / "a")
    await complete_on_dying_server(registry_settings, point, directory, preference=preference)
    async with serving(create_app(registry_settings)) as url, RegistryClient(url=url, token=TOKEN) as client:
        version_id = await assert_nothing_resolves(client)
        assert await assert_publishes(client, storage, directory) == version_id


@pytest.mark.parametrize(("point", "preference"), SERVER_POINTS)
async def test_what_a_killed_registry_had_received_can_be_completed_without_uploading_again(
    registry_settings: RegistrySettings, storage: ObjectStorage, tmp_path: Path, point: str, preference: Preference
) -> None:
    directory = write_adapter(tmp_path / "a")
    await complete_on_dying_server(registry_settings, point, directory, preference=preference)
    async with serving(create_app(registry_settings)) as url, RegistryClient(url=url, token=TOKEN) as client:
        version_id = await assert_nothing_resolves(client)
        await client.complete(version_id)
        await client.download(await client.resolve(FIRST), tmp_path / "downloaded")
        await until_empty(storage, "incoming/")


@pytest.mark.parametrize("preference", list(Preference))
async def test_a_registry_killed_just_after_the_last_step_has_published(
    registry_settings: RegistrySettings, storage: ObjectStorage, tmp_path: Path, preference: Preference
) -> None:
    directory = write_adapter(tmp_path / "a")
    await complete_on_dying_server(registry_settings, "after mark_ready 1", directory, preference=preference)
    async with serving(create_app(registry_settings)) as url, RegistryClient(url=url, token=TOKEN) as client:
        await client.resolve(FIRST)
        await assert_publishes(client, storage, directory)
