"""Retention: what is kept, what is retired, whose bytes are removed when."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from kit.database import Database
from kit.storage import ObjectStorage
from registry.client import RegistryClient
from registry.errors import InvalidReference
from registry.lifecycle.policy import TenantPolicy
from registry.lifecycle.upkeep.schemas import Retain
from registry.manifest import Owner
from tests.support.registry_server import OWNER
from tests.support.steering import (
    ADAPTER,
    audit,
    lease,
    make_live,
    publish,
    publish_many,
    retain,
    rows,
    states,
)


async def keep(client: RegistryClient, versions: int, *, remove_after_seconds: int = 3600) -> None:
    policy = TenantPolicy(keep_versions=versions, remove_after_seconds=remove_after_seconds)
    await client.lifecycle.put_policy("default", policy)


async def test_the_newest_and_every_aliased_version_are_kept_and_the_rest_is_retired(
    client: RegistryClient, database: Database, tmp_path: Path
) -> None:
    versions = await publish_many(client, tmp_path, 6)
    await make_live(client, versions[0], versions[1])
    await keep(client, 2)
    planned = await retain(client, dry_run=True)
    assert [(f.version_id, f.action, f.done) for f in planned] == [(v, "retire", False) for v in versions[2:4]]
    assert set((await states(database)).values()) == {"ready"}
    found = await retain(client)
    assert [(f.version_id, f.action, f.done) for f in found] == [(v, "retire", True) for v in versions[2:4]]
    expected = dict.fromkeys(versions, "ready") | dict.fromkeys(versions[2:4], "retired")
    assert await states(database) == expected
    assert (await audit(database, versions[2]))[-1][:4] == ("test", "retired", "ready", "retired")
    assert await retain(client) == []


async def test_each_tenant_has_its_own_number(client: RegistryClient, database: Database, tmp_path: Path) -> None:
    other = Owner(tenant="other", user="ann")
    mine = await publish_many(client, tmp_path / "a", 4)
    theirs = await publish_many(client, tmp_path / "b", 4, owner=other)
    await keep(client, 1)
    await retain(client)
    found = await states(database)
    assert [found[v] for v in mine] == ["retired"] * 3 + ["ready"]
    assert [found[v] for v in theirs] == ["retired"] + ["ready"] * 3  # the default keeps three


async def test_a_version_that_an_engine_answers_with_is_neither_retired_nor_removed(
    client: RegistryClient, database: Database, storage: ObjectStorage, tmp_path: Path
) -> None:
    a, b = await publish_many(client, tmp_path, 2)
    await keep(client, 1, remove_after_seconds=0)
    await lease(database, a)
    assert await retain(client) == []
    await lease(database, a, leases=0)
    await rows(database, "delete from engine_holding")
    await client.lifecycle.retire_version(a, why="old")
    await lease(database, a)
    assert await retain(client) == []
    assert any(a in found.key for found in await storage.list(""))
    await lease(database, a, leases=5, silent_seconds=3600)  # that engine has stopped serving by itself
    assert [f.action for f in await retain(client)] == ["remove"]
    assert await states(database) == {a: "retired", b: "ready"}


async def test_retired_bytes_are_removed_once_the_tenants_delay_has_passed(
    client: RegistryClient, database: Database, storage: ObjectStorage, tmp_path: Path
) -> None:
    a, b = await publish_many(client, tmp_path, 2)
    await client.lifecycle.retire_version(a, why="old")
    assert await retain(client) == []  # a week, by default
    await keep(client, 1, remove_after_seconds=3600)
    assert await retain(client) == []
    await keep(client, 1, remove_after_seconds=0)
    assert [(f.version_id, f.done) for f in await retain(client, dry_run=True)] == [(a, False)]
    assert any(a in found.key for found in await storage.list(""))
    assert [(f.version_id, f.done) for f in await retain(client)] == [(a, True)]
    assert [found.key for found in await storage.list("") if a in found.key] == []
    assert any(b in found.key for found in await storage.list(""))
    assert (await audit(database, a))[-1][:2] == ("test", "removed")
    assert await retain(client) == []


async def test_passes_beside_each_other_and_beside_alias_moves_never_retire_what_is_aliased(
    client: RegistryClient, database: Database, tmp_path: Path
) -> None:
    versions = await publish_many(client, tmp_path, 8)
    await keep(client, 1)

    async def move(version_id: str) -> None:
        await client.move_alias(OWNER, ADAPTER, f"a-{version_id[:4]}", version_id=version_id, expected_version_id=None)

    await asyncio.gather(
        *[retain(client) for _ in range(3)], *[move(version_id) for version_id in versions[:-1]], return_exceptions=True
    )
    dangling = "select count(*) from alias join adapter_version v using (version_id) where v.state <> 'ready'"
    assert await rows(database, dangling) == [(0,)]
    assert await rows(database, "select count(*) from audit where action = 'retired'") == await rows(
        database, "select count(*) from adapter_version where state = 'retired'"
    )


async def test_idempotency_keys_are_forgotten_after_a_day(client: RegistryClient, database: Database) -> None:
    for number in range(7):
        await rows(
            database,
            "insert into idempotent_request (tenant, key, digest, at) values ('t', :key, 'd', now() - "
            "make_interval(hours => :hours))",
            key=f"k{number}",
            hours=number * 8,
        )
    assert [f.detail for f in await retain(client, dry_run=True)] == ["4 keys"]
    assert [f.detail for f in await retain(client)] == ["2 keys", "2 keys"]
    assert await rows(database, "select key from idempotent_request order by key") == [("k0",), ("k1",), ("k2",)]


@pytest.mark.parametrize("cursor", ["made up", "WyJyZXRhaW4iLCJyZXRpcmUiLCJ4Il0", ""])
async def test_a_made_up_cursor_is_refused(client: RegistryClient, cursor: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        await client.lifecycle.retain(Retain(cursor=cursor))
    assert caught.value.field == "cursor"


async def test_a_suspended_version_is_left_to_whoever_suspended_it(
    client: RegistryClient, database: Database, tmp_path: Path
) -> None:
    a, b, c = await publish_many(client, tmp_path, 3)
    await client.lifecycle.suspend_version(a, why="look at it")
    await keep(client, 1)
    await retain(client)
    assert await states(database) == {a: "suspended", b: "retired", c: "ready"}


async def test_adapters_of_many_users_are_looked_at_page_by_page(
    client: RegistryClient, database: Database, tmp_path: Path
) -> None:
    await keep(client, 1)
    for user in ("ann", "bob", "cid", "dan", "eve"):
        for seed in range(2):
            await publish(client, tmp_path, seed=seed, owner=Owner(tenant="default", user=user))
    assert len(await retain(client)) == 5
    assert sorted((await states(database)).values()) == ["ready"] * 5 + ["retired"] * 5
