"""Whom an evaluation compares a new adapter with: others' live adapters of the same base, out of a real registry."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from registry.client import RegistryClient
from registry.manifest import Owner
from tests.support.adapters import BASE, BASE_CONFIG
from tests.support.registry_server import TOKEN, registry_settings, registry_url
from tests.support.steering import ADAPTER, make_live, publish
from training.rivals import fetch_rivals

__all__ = ["registry_settings", "registry_url"]


def owner(user: str, *, tenant: str = "default") -> Owner:
    return Owner(tenant=tenant, user=user)


@pytest.fixture
async def registry(registry_url: str) -> AsyncIterator[RegistryClient]:
    async with RegistryClient(url=registry_url, token=TOKEN) as client:
        await client.register_base(BASE, config=BASE_CONFIG)
        yield client


async def test_others_live_adapters_are_fetched_the_same_ones_each_time(
    registry: RegistryClient, tmp_path: Path
) -> None:
    live = {}
    for seed, user in enumerate(("ann", "bob", "cid", "dora")):
        live[user] = await publish(registry, tmp_path / "made", owner=owner(user), seed=seed)
        await make_live(registry, live[user], owner=owner(user))
    await publish(registry, tmp_path / "made", owner=owner("eve"), seed=9)  # nothing of hers is live
    stranger = owner("fay", tenant="another")
    await make_live(registry, await publish(registry, tmp_path / "made", owner=stranger, seed=10), owner=stranger)
    found = [
        await fetch_rivals(
            registry, owner=owner("ann"), adapter=ADAPTER, base=BASE, limit=limit, directory=tmp_path / f"to-{turn}"
        )
        for turn, limit in enumerate((2, 2, 9, 0))
    ]
    assert set(found[0]) == set(found[1]) < {live["bob"], live["cid"], live["dora"]}
    assert len(found[0]) == 2
    assert set(found[2]) == {live["bob"], live["cid"], live["dora"]}
    assert found[3] == {}
    for directory in found[2].values():
        assert (directory / "adapter_model.safetensors").is_file()


async def test_nobody_is_a_rival_on_another_base(registry: RegistryClient, tmp_path: Path) -> None:
    await make_live(registry, await publish(registry, tmp_path / "made", owner=owner("bob")), owner=owner("bob"))
    for other in (
        BASE.model_copy(update={"id": "nobody/knows-it"}),
        BASE.model_copy(update={"weights_sha256": "9" * 64}),
    ):
        found = await fetch_rivals(
            registry, owner=owner("ann"), adapter=ADAPTER, base=other, limit=3, directory=tmp_path / "to"
        )
        assert found == {}


async def test_a_rival_that_cannot_be_had_any_more_is_nobodys_fault(
    registry: RegistryClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner erased it after it was listed."""
    live = {}
    for seed, user in enumerate(("bob", "cid")):
        live[user] = await publish(registry, tmp_path / "made", owner=owner(user), seed=seed)
        await make_live(registry, live[user], owner=owner(user))
    listed = await registry.list_adapters("default", base=BASE.id, alias="live", suspended=False, limit=200)

    async def as_before(*_: object, **__: object) -> object:
        return listed

    monkeypatch.setattr(registry, "list_adapters", as_before)
    await registry.lifecycle.erase_version(live["bob"], why="asked to", force=True)
    found = await fetch_rivals(
        registry, owner=owner("ann"), adapter=ADAPTER, base=BASE, limit=1, directory=tmp_path / "to"
    )
    assert set(found) == {live["cid"]}
