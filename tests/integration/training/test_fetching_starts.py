"""Where a training's start comes from: a version that the tenant shares, out of a real registry."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from registry.client import RegistryClient
from registry.manifest import SHARED, Owner
from tests.support.adapters import BASE, BASE_CONFIG
from tests.support.registry_server import TOKEN, registry_settings, registry_url
from tests.support.steering import ADAPTER, make_live, publish
from training.config import ResolvedConfig, resolve
from training.errors import ConfigInvalid
from training.starts import borrowed_start, pin_start

__all__ = ["registry_settings", "registry_url"]
TENANT = "default"
COMMON = Owner(tenant=TENANT, user=SHARED)
RANK, ALPHA = 4, 8.0  # of what tests publish


@pytest.fixture
async def registry(registry_url: str) -> AsyncIterator[RegistryClient]:
    async with RegistryClient(url=registry_url, token=TOKEN) as client:
        await client.register_base(BASE, config=BASE_CONFIG)
        yield client


def beginning_with(start: str | None, **changes: Any) -> ResolvedConfig:
    return resolve(arguments={"start": start, "rank": RANK, "alpha": ALPHA, **changes})


async def test_a_start_is_the_version_that_its_alias_named_when_it_was_looked_at(
    registry: RegistryClient, tmp_path: Path
) -> None:
    first, second = [await publish(registry, tmp_path / "made", owner=COMMON, seed=seed) for seed in (1, 2)]
    await make_live(registry, first, owner=COMMON)
    pinned = await pin_start(beginning_with(f"shared/{ADAPTER}"), registry, tenant=TENANT)
    await make_live(registry, second, owner=COMMON)
    assert pinned.training.start == f"shared/{ADAPTER}@1"
    assert await pin_start(pinned, registry, tenant=TENANT) == pinned
    made = tmp_path / "made" / f"{SHARED}-{ADAPTER}-1" / "adapter_model.safetensors"
    beside = tmp_path / "to"
    async with borrowed_start(pinned.training.start, registry, tenant=TENANT, base=BASE, beside=beside) as found:
        assert found is not None
        assert found.name == first
        assert (found / "adapter_model.safetensors").read_bytes() == made.read_bytes()
    assert list(beside.iterdir()) == []


async def test_without_a_start_the_registry_is_not_asked(registry: RegistryClient, tmp_path: Path) -> None:
    await registry.close()
    config = beginning_with(None)
    assert await pin_start(config, registry, tenant=TENANT) is config
    async with borrowed_start(None, registry, tenant=TENANT, base=BASE, beside=tmp_path) as found:
        assert found is None


@pytest.mark.parametrize("why", ["nobody has it", "another tenant's", "suspended", "erased", "for another base"])
async def test_a_start_that_cannot_be_had_is_refused_by_name(
    registry: RegistryClient, tmp_path: Path, why: str
) -> None:
    tenant, base = TENANT, BASE
    if why != "nobody has it":
        version = await publish(registry, tmp_path / "made", owner=COMMON)
        await make_live(registry, version, owner=COMMON)
    if why == "another tenant's":
        tenant = "another"
    elif why == "suspended":
        await registry.lifecycle.suspend_version(version, why="a doubt")
    elif why == "erased":
        await registry.lifecycle.erase_version(version, why="asked to", force=True)
    elif why == "for another base":
        base = BASE.model_copy(update={"id": "nobody/knows-it", "weights_sha256": "9" * 64})
    with pytest.raises(ConfigInvalid, match="start: ") as caught:
        async with borrowed_start(f"shared/{ADAPTER}@1", registry, tenant=tenant, base=base, beside=tmp_path / "to"):
            pass
    assert caught.value.field == "start"
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize("changes", [{"rank": 99}, {"alpha": 99.0}, {"base": "another"}], ids=str)
async def test_what_does_not_fit_is_refused_before_anything_is_bought(
    registry: RegistryClient, tmp_path: Path, changes: dict[str, Any]
) -> None:
    await make_live(registry, await publish(registry, tmp_path / "made", owner=COMMON), owner=COMMON)
    other = BASE.model_copy(update={"id": "another", "weights_sha256": "9" * 64})
    await registry.register_base(other)
    with pytest.raises(ConfigInvalid, match="start: that adapter") as caught:
        await pin_start(beginning_with(f"shared/{ADAPTER}", **changes), registry, tenant=TENANT)
    assert caught.value.field == "start"
