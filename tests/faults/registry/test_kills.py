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
from registry.errors import NotServable, RegistryUnavailable
from registry.manifest import CONFIG_FILE, WEIGHTS_FILE, AdapterRef
from registry.settings import RegistrySettings
from tests.support.adapters import BASE, write_adapter
from tests.support.registry_server import OWNER, TOKEN, free_socket, serving

pytestmark = pytest.mark.faults
DRIVER = Path(__file__).with_name("driver.py")
FIRST = AdapterRef.parse("users/ann@1")


async def start(role: str, point: str, arguments: dict[str, Any]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(sys.executable, str(DRIVER), role, point, json.dumps(arguments))


async def run_publisher(url: str, directory: Path, point: str, **more: Any) -> int:
    given = {"url": url, "token": TOKEN, "directory": str(directory), "base": BASE.model_dump(), **more}
    process = await start("publisher", point, given)
    return await asyncio.wait_for(process.wait(), 60)


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
    assert [found.key for found in await storage.list("incoming/")] == []
    assert len(await storage.list("tenants/")) == 2
    return manifest.version_id


@pytest.mark.parametrize("point", ["begin", CONFIG_FILE, WEIGHTS_FILE])
async def test_a_publisher_killed_between_two_steps_leaves_nothing_resolvable(
    registry_url: str, client: RegistryClient, storage: ObjectStorage, tmp_path: Path, point: str
) -> None:
    directory = write_adapter(tmp_path / "a")
    assert await run_publisher(registry_url, directory, point) == -9
    version_id = await assert_nothing_resolves(client)
    assert await assert_publishes(client, storage, directory) == version_id


@pytest.mark.parametrize("delay_seconds", [0.0, 0.02, 0.05, 0.1])
async def test_a_publisher_killed_while_it_waits_for_complete_can_run_again(
    registry_url: str, client: RegistryClient, storage: ObjectStorage, tmp_path: Path, delay_seconds: float
) -> None:
    directory = write_adapter(tmp_path / "a")
    code = await run_publisher(registry_url, directory, "during complete", delay_seconds=delay_seconds)
    assert code in {0, -9}  # the registry may be quicker
    await assert_publishes(client, storage, directory)


async def test_a_publisher_killed_after_complete_has_published(
    registry_url: str, client: RegistryClient, storage: ObjectStorage, tmp_path: Path
) -> None:
    directory = write_adapter(tmp_path / "a")
    assert await run_publisher(registry_url, directory, "complete") == -9
    before = (await client.resolve(FIRST)).manifest
    assert await assert_publishes(client, storage, directory) == before.version_id


SERVER_POINTS = [
    "before read_uploads 1",
    "after read_uploads 1",
    "after mark_uploaded 1",
    "after validate 1",
    "before copy 1",
    "after copy 1",
    "after copy 2",
    "before delete 1",
    "after delete 1",
    "after delete 2",
    "after move_files 1",
    "before mark_ready 1",
]


async def complete_on_dying_server(settings: RegistrySettings, point: str, directory: Path) -> None:
    """Publish to a server that kills itself at `point`, and see it die."""
    listening = free_socket()
    port = listening.getsockname()[1]
    listening.close()
    values = {
        name: value.get_secret_value() if isinstance(value, SecretStr) else value
        for name, value in (settings.model_dump() | {"registry_port": port}).items()
    }
    process = await start("server", point, {"settings": values})
    async with RegistryClient(url=f"http://127.0.0.1:{port}", token=TOKEN) as client:
        for _ in range(100):
            try:
                await client.register_base(BASE)
                break
            except RegistryUnavailable:
                await asyncio.sleep(0.1)
        with pytest.raises(RegistryUnavailable):
            await client.publish(directory, draft=draft_from_directory(directory, owner=OWNER, base=BASE))
    assert await asyncio.wait_for(process.wait(), 30) == -9


@pytest.mark.parametrize("point", SERVER_POINTS)
async def test_a_registry_killed_within_complete_leaves_nothing_resolvable(
    registry_settings: RegistrySettings, storage: ObjectStorage, tmp_path: Path, point: str
) -> None:
    directory = write_adapter(tmp_path / "a")
    await complete_on_dying_server(registry_settings, point, directory)
    async with serving(create_app(registry_settings)) as url, RegistryClient(url=url, token=TOKEN) as client:
        version_id = await assert_nothing_resolves(client)
        assert await assert_publishes(client, storage, directory) == version_id


@pytest.mark.parametrize("point", SERVER_POINTS[2:])
async def test_what_a_killed_registry_had_received_can_be_completed_without_uploading_again(
    registry_settings: RegistrySettings, storage: ObjectStorage, tmp_path: Path, point: str
) -> None:
    directory = write_adapter(tmp_path / "a")
    await complete_on_dying_server(registry_settings, point, directory)
    async with serving(create_app(registry_settings)) as url, RegistryClient(url=url, token=TOKEN) as client:
        version_id = await assert_nothing_resolves(client)
        await client.complete(version_id)
        await client.download(await client.resolve(FIRST), tmp_path / "downloaded")
        assert [found.key for found in await storage.list("incoming/")] == []


async def test_a_registry_killed_just_after_the_last_step_has_published(
    registry_settings: RegistrySettings, storage: ObjectStorage, tmp_path: Path
) -> None:
    directory = write_adapter(tmp_path / "a")
    await complete_on_dying_server(registry_settings, "after mark_ready 1", directory)
    async with serving(create_app(registry_settings)) as url, RegistryClient(url=url, token=TOKEN) as client:
        await client.resolve(FIRST)
        await assert_publishes(client, storage, directory)
