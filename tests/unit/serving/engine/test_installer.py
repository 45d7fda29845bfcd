from __future__ import annotations

import asyncio
import errno
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from kit.canonical import sha256_bytes
from registry.manifest import BaseIdentity, LoraShape, Manifest, ManifestFile, Owner
from serving.engine.file_lock import locked
from serving.engine.installer import Installer
from serving.engine.metrics import EngineMetrics
from serving.errors import AdapterDamaged, CacheBusy, CacheFull

FILES = {"adapter_config.json": b"{}" * 40, "adapter_model.safetensors": b"weights" * 1000}
DIGEST = "0" * 64


def manifest_of(version: int = 1) -> Manifest:
    base = BaseIdentity(
        id="base", config_sha256=DIGEST, weights_sha256=DIGEST, tokenizer_sha256=DIGEST, chat_template_sha256=DIGEST
    )
    files = [ManifestFile(path=n, size_bytes=len(d), sha256=sha256_bytes(d)) for n, d in FILES.items()]
    return Manifest(
        owner=Owner(tenant="default", user="ada"),
        base=base,
        lora=LoraShape(rank=16, alpha=32, target_modules=("q_proj",)),
        files=tuple(files),
        version_id=f"v{version:032x}",
        version=version,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


class Downloads:
    """Writes the files, counts how often, and can be told to damage what it writes."""

    def __init__(self, files: dict[str, bytes] | None = None) -> None:
        self.files = FILES if files is None else files
        self.calls = 0

    async def __call__(self, directory: Path) -> None:
        self.calls += 1
        directory.mkdir()
        await asyncio.sleep(0)
        for name, data in self.files.items():
            (directory / name).write_bytes(data)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def installer(tmp_path: Path, registry: CollectorRegistry) -> Installer:
    return open_installer(tmp_path, registry)


def open_installer(directory: Path, registry: CollectorRegistry | None = None) -> Installer:
    installer = Installer(directory, metrics=EngineMetrics(registry or CollectorRegistry()), lock_seconds=0.2)
    installer.open()
    return installer


async def test_an_installed_version_holds_exactly_the_manifests_files(installer: Installer, tmp_path: Path) -> None:
    directory = await installer.install(manifest_of(), Downloads())

    assert directory == tmp_path / manifest_of().version_id
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == FILES
    assert list((tmp_path / ".staging").iterdir()) == []


async def test_a_hundred_concurrent_installations_download_once(installer: Installer) -> None:
    download = Downloads()
    await asyncio.gather(*(installer.install(manifest_of(), download) for _ in range(100)))

    assert download.calls == 1


async def test_equal_bytes_of_two_versions_are_two_directories(installer: Installer) -> None:
    first = await installer.install(manifest_of(1), Downloads())
    second = await installer.install(manifest_of(2), Downloads())
    shutil.rmtree(first)

    assert {path.name for path in second.iterdir()} == set(FILES)


async def test_what_was_installed_survives_a_restart_without_a_download(tmp_path: Path) -> None:
    await open_installer(tmp_path).install(manifest_of(), Downloads())
    download = Downloads()
    await open_installer(tmp_path).install(manifest_of(), download)

    assert download.calls == 0


@pytest.mark.parametrize("damage", ["bit flip", "truncated", "missing file", "extra file", "symbolic link"])
async def test_what_was_damaged_on_disk_is_downloaded_again_after_a_restart(tmp_path: Path, damage: str) -> None:
    weights = await open_installer(tmp_path).install(manifest_of(), Downloads()) / "adapter_model.safetensors"
    if damage == "bit flip":
        weights.write_bytes(b"W" + weights.read_bytes()[1:])
    elif damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-1])
    elif damage == "missing file":
        weights.unlink()
    elif damage == "extra file":
        weights.with_name("evil.py").touch()
    else:
        weights.rename(tmp_path / "elsewhere")
        weights.symlink_to(tmp_path / "elsewhere")
    download = Downloads()
    directory = await open_installer(tmp_path).install(manifest_of(), download)

    assert download.calls == 1
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == FILES


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (FILES | {"adapter_model.safetensors": b"weighty" * 1000}, "does not have the digest"),
        (FILES | {"adapter_model.safetensors": b"weights" * 999}, "has 6993 bytes, not 7000"),
        ({"adapter_config.json": FILES["adapter_config.json"]}, "adapter_model.safetensors is missing"),
        (FILES | {"evil.py": b"x"}, "evil.py is not in the manifest"),
    ],
)
async def test_a_damaged_download_is_refused_and_leaves_nothing(
    installer: Installer, tmp_path: Path, files: dict[str, bytes], reason: str
) -> None:
    with pytest.raises(AdapterDamaged, match=reason):
        await installer.install(manifest_of(), Downloads(files))

    assert [path.name for path in tmp_path.iterdir()] == [".staging"]
    assert list((tmp_path / ".staging").iterdir()) == []
    assert await installer.install(manifest_of(), Downloads()) == tmp_path / manifest_of().version_id


async def test_what_a_dead_process_left_half_written_is_removed_at_the_next_start(tmp_path: Path) -> None:
    open_installer(tmp_path)
    half = tmp_path / ".staging" / manifest_of().version_id
    half.mkdir()
    (half / "adapter_model.safetensors").write_bytes(b"wei")
    half.with_name(f"{half.name}.lock").touch()
    open_installer(tmp_path)

    assert list((tmp_path / ".staging").iterdir()) == []


async def test_what_a_living_process_is_writing_is_left_alone(tmp_path: Path) -> None:
    open_installer(tmp_path)
    half = tmp_path / ".staging" / manifest_of().version_id
    half.mkdir()
    async with locked(half.with_name(f"{half.name}.lock"), timeout_seconds=1):
        installer = open_installer(tmp_path)
        assert half.is_dir()
        with pytest.raises(CacheBusy):
            await installer.install(manifest_of(), Downloads())


async def test_a_disk_without_room_is_refused_before_the_download(
    installer: Installer, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    download = Downloads()
    with pytest.raises(CacheFull, match="1000 bytes free; this adapter needs"):
        await installer.install(manifest_of(), download)

    assert download.calls == 0


async def test_the_cache_is_private_to_its_user(tmp_path: Path) -> None:
    installer = open_installer(tmp_path / "cache")
    directory = await installer.install(manifest_of(), Downloads())

    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
    assert directory.stat().st_mode & 0o777 == 0o700


async def test_each_stage_is_timed_once_for_a_new_version(installer: Installer, registry: CollectorRegistry) -> None:
    await installer.install(manifest_of(), Downloads())
    await installer.install(manifest_of(), Downloads())

    for stage in ("download", "verify", "install"):
        assert registry.get_sample_value("lorry_adapter_load_seconds_count", {"stage": stage}) == 1


async def test_a_disk_that_fills_during_the_download_is_named_and_leaves_nothing(
    installer: Installer, tmp_path: Path
) -> None:
    async def fill(directory: Path) -> None:
        directory.mkdir()
        (directory / "adapter_model.safetensors").write_bytes(b"wei")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(CacheFull, match="no room"):
        await installer.install(manifest_of(), fill)

    assert list((tmp_path / ".staging").iterdir()) == []
    assert await installer.install(manifest_of(), Downloads()) == tmp_path / manifest_of().version_id


async def test_files_that_are_no_longer_trusted_are_digested_again(installer: Installer) -> None:
    directory = await installer.install(manifest_of(), Downloads())
    weights = directory / "adapter_model.safetensors"
    weights.write_bytes(b"W" + weights.read_bytes()[1:])
    installer.distrust(manifest_of().version_id)
    await installer.install(manifest_of(), Downloads())

    assert weights.read_bytes() == FILES["adapter_model.safetensors"]
