"""From the real registry and the real object store to this host's disk."""

from __future__ import annotations

import asyncio
import hashlib
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
from serving.engine.installer import SEALED_FILE, Installer
from serving.engine.launch import TARGET_MODULES
from serving.engine.metrics import EngineMetrics
from serving.engine.source import AdapterSource, Fit
from serving.engine.urgency import Urgency
from serving.errors import AdapterDamaged

Publish = Callable[..., Awaitable[Manifest]]


class Place:
    """One engine's source and its disk, like one process has them."""

    def __init__(self, registry: RegistryClient, base_directory: Path, directory: Path) -> None:
        self.measures, self.directory = CollectorRegistry(), directory
        metrics = EngineMetrics(self.measures)
        installer = Installer(directory, metrics=metrics, lock_seconds=10)
        installer.open()
        base = BaseIdentity.of_directory(base_directory, id="base")
        fit = Fit(base=base, max_rank=16, target_modules=frozenset(TARGET_MODULES))
        self.source = AdapterSource(registry, installer=installer, fit=fit, metrics=metrics, refusal_ttl_seconds=0)

    async def content(self, version_id: str) -> bytes:
        """Return the version's plain files, one after another."""
        with await self.source.open(await self.source.find(version_id), urgent=Urgency(urgent=True)) as opened:
            return Path(opened.files.path).read_bytes()[:-16]

    def downloads(self) -> float | None:
        labels = {"stage": "download", "source": "registry"}
        return self.measures.get_sample_value("lorry_adapter_load_seconds_count", labels)


def is_manifests(content: bytes, manifest: Manifest) -> bool:
    """Whether these are the manifest's files, one after another."""
    begin = 0
    for file in manifest.files:
        if hashlib.sha256(content[begin : begin + file.size_bytes]).hexdigest() != file.sha256:
            return False
        begin += file.size_bytes
    return begin == len(content)


@pytest.fixture
def place(registry_client: RegistryClient, base_directory: Path, tmp_path: Path) -> Place:
    return Place(registry_client, base_directory, tmp_path)


async def test_a_published_version_is_opened_whole_and_its_sealed_object_kept(
    stack: Stack, place: Place, publish: Publish, random_adapter: Callable[..., Path]
) -> None:
    manifest = await publish(random_adapter(80, rank=4), user="installed")
    content = await place.content(manifest.version_id)

    assert is_manifests(content, manifest)
    kept = (place.directory / manifest.version_id / SEALED_FILE).read_bytes()
    assert kept == await ObjectStorage(stack.plan.storage).get(sealed_key(manifest))
    assert sorted(path.name for path in place.directory.iterdir()) == [".staging", manifest.version_id]


async def test_nothing_on_disk_tells_whose_adapter_it_is_nor_what_is_in_it(
    place: Place, publish: Publish, random_adapter: Callable[..., Path]
) -> None:
    manifest = await publish(random_adapter(81, rank=4), user="user-ada-secret", tenant="tenant-secret")
    content = await place.content(manifest.version_id)

    written = [path for path in place.directory.rglob("*") if path.is_file()]
    assert written == [place.directory / manifest.version_id / SEALED_FILE]
    on_disk = written[0].read_bytes()
    assert b"secret" not in on_disk
    assert all(content[at : at + 32] not in on_disk for at in range(0, len(content) - 32, 4096))


async def test_an_unknown_version_leaves_nothing(place: Place) -> None:
    with pytest.raises(VersionNotFound):
        await place.content("v" + "0" * 32)

    assert [path.name for path in place.directory.iterdir()] == [".staging"]


@pytest.mark.parametrize("damage", ["bit flip", "truncated", "longer", "gone"])
async def test_damaged_objects_are_refused_and_can_be_had_again_once_mended(
    stack: Stack, place: Place, publish: Publish, random_adapter: Callable[..., Path], damage: str
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
        await place.content(manifest.version_id)
    assert [path.name for path in place.directory.iterdir()] == [".staging"]
    assert list((place.directory / ".staging").iterdir()) == []

    await storage.put(key, sound)
    assert is_manifests(await place.content(manifest.version_id), manifest)


async def test_two_processes_share_one_download(
    registry_client: RegistryClient,
    base_directory: Path,
    publish: Publish,
    random_adapter: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """Two sources on one directory have no object in common, like two engines of one host."""
    manifest = await publish(random_adapter(83, rank=4), user="shared-cache")
    places = [Place(registry_client, base_directory, tmp_path) for _ in range(2)]
    contents = await asyncio.gather(*(place.content(manifest.version_id) for place in places))

    assert all(is_manifests(content, manifest) for content in contents)
    assert sorted(place.downloads() for place in places) == [0, 1]
