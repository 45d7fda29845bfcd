"""From the real registry and the real object store to this host's disk."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from kit.storage import ObjectStorage
from lorry.local.stack import Stack
from registry.client import RegistryClient
from registry.errors import VersionNotFound
from registry.manifest import BaseIdentity, Manifest
from registry.publishing.layout import sealed_key
from serving.engine.installer import Installer, verify_directory
from serving.engine.launch import TARGET_MODULES
from serving.engine.metrics import EngineMetrics
from serving.engine.source import AdapterSource, Fit
from serving.errors import AdapterDamaged

Publish = Callable[..., Awaitable[Manifest]]


@pytest.fixture
def source(registry_client: RegistryClient, base_directory: Path, tmp_path: Path) -> AdapterSource:
    metrics = EngineMetrics(CollectorRegistry())
    installer = Installer(tmp_path, metrics=metrics, lock_seconds=10)
    installer.open()
    base = BaseIdentity.of_directory(base_directory, id="base")
    fit = Fit(base=base, base_directory=base_directory, max_rank=16, target_modules=frozenset(TARGET_MODULES))
    return AdapterSource(registry_client, installer=installer, fit=fit, metrics=metrics, refusal_ttl_seconds=0)


async def test_a_published_version_is_installed_verified_and_whole(
    source: AdapterSource, publish: Publish, random_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    manifest = await publish(random_adapter(80, rank=4), user="installed")
    directory = await source.install(manifest.version_id)

    assert directory == tmp_path / manifest.version_id
    verify_directory(directory, manifest)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".staging", manifest.version_id]


async def test_nothing_on_disk_tells_whose_adapter_it_is(
    source: AdapterSource, publish: Publish, random_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    manifest = await publish(random_adapter(81, rank=4), user="user-ada-secret", tenant="tenant-secret")
    directory = await source.install(manifest.version_id)

    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.parent for path in written} == {directory}
    assert not any(b"secret" in path.read_bytes() for path in written)
    assert "secret" not in str(directory)


async def test_an_unknown_version_leaves_nothing(source: AdapterSource, tmp_path: Path) -> None:
    with pytest.raises(VersionNotFound):
        await source.install("v" + "0" * 32)

    assert [path.name for path in tmp_path.iterdir()] == [".staging"]


@pytest.mark.parametrize("damage", ["bit flip", "truncated", "longer", "gone"])
async def test_damaged_objects_are_refused_and_can_be_had_again_once_mended(
    stack: Stack,
    source: AdapterSource,
    publish: Publish,
    random_adapter: Callable[..., Path],
    tmp_path: Path,
    damage: str,
) -> None:
    manifest = await publish(random_adapter(82, rank=4), user=f"damaged-{damage.replace(' ', '-')}")
    storage, key = ObjectStorage(stack.plan.storage), sealed_key(manifest)
    sound = await storage.get(key)
    if damage == "gone":
        await storage.delete(key)
    else:
        middle = len(sound) // 2
        flipped = sound[:middle] + bytes([sound[middle] ^ 1]) + sound[middle + 1 :]
        await storage.put(key, {"bit flip": flipped, "truncated": sound[:-1], "longer": sound + b"x"}[damage])
    with pytest.raises(AdapterDamaged, match="the object store"):
        await source.install(manifest.version_id)
    assert [path.name for path in tmp_path.iterdir()] == [".staging"]
    assert list((tmp_path / ".staging").iterdir()) == []

    await storage.put(key, sound)
    verify_directory(await source.install(manifest.version_id), manifest)


async def test_two_processes_caches_do_not_disturb_each_other(
    registry_client: RegistryClient,
    base_directory: Path,
    publish: Publish,
    random_adapter: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """Two sources on one directory have no object in common, like two engines of one host."""
    manifest = await publish(random_adapter(83, rank=4), user="shared-cache")
    base = BaseIdentity.of_directory(base_directory, id="base")
    fit = Fit(base=base, base_directory=base_directory, max_rank=16, target_modules=frozenset(TARGET_MODULES))
    samples, sources = [], []
    for _ in range(2):
        registry = CollectorRegistry()
        metrics = EngineMetrics(registry)
        installer = Installer(tmp_path, metrics=metrics, lock_seconds=10)
        installer.open()
        samples.append(registry)
        sources.append(
            AdapterSource(registry_client, installer=installer, fit=fit, metrics=metrics, refusal_ttl_seconds=0)
        )
    directories = await asyncio.gather(*(source.install(manifest.version_id) for source in sources))

    verify_directory(directories[0], manifest)
    assert directories[0] == directories[1]
    downloads = [s.get_sample_value("lorry_adapter_load_seconds_count", {"stage": "download"}) for s in samples]
    assert sorted(downloads) == [0, 1]
