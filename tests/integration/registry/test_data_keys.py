"""Data keys on a real PostgreSQL: one an owner, readable only under its master key, gone when destroyed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import text

from kit.database import Database
from kit.errors import MasterKeyMissing, SealBroken
from kit.master_keys import KeyFile
from kit.sealing import seal, unseal
from kit.storage import ObjectStorage
from registry.errors import DataKeyDestroyed, MasterKeyInUse, MasterKeyNotFound
from registry.manifest import Owner
from registry.repository import subject_of
from registry.sealing.data_keys import DataKey, DataKeys
from registry.sealing.rotation import forget_master_key, rewrap_data_keys

ANN, BOB, TEAM = (Owner(tenant="default", user=user) for user in ("ann", "bob", "~"))


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile.create(tmp_path / "keys.json")


@pytest.fixture
def data_keys(database: Database, file: KeyFile) -> DataKeys:
    return DataKeys(database, file)


async def rows(database: Database, statement: str) -> list[tuple[object, ...]]:
    async with database.transaction() as session:
        return [tuple(row) for row in await session.execute(text(statement))]


async def test_an_owner_has_one_key_that_is_another_owners_not(data_keys: DataKeys) -> None:
    keys = [await data_keys.ensure(owner) for owner in (ANN, ANN, BOB, TEAM)]
    assert keys[0] == keys[1]
    assert len({key.secret for key in keys}) == len({key.id for key in keys}) == 3
    assert await data_keys.open(keys[0].id) == keys[0].secret


async def test_all_that_ask_at_once_get_the_same_key(database: Database, file: KeyFile) -> None:
    processes = [DataKeys(database, KeyFile(file._path)) for _ in range(20)]
    keys = await asyncio.gather(*(each.ensure(ANN) for each in processes))
    assert len({(key.id, key.secret) for key in keys}) == 1
    assert await rows(database, "select count(*) from data_key") == [(1,)]


async def test_nothing_in_the_database_shows_the_key(database: Database, data_keys: DataKeys) -> None:
    key = await data_keys.ensure(ANN)
    [(wrapped,)] = await rows(database, "select wrapped from data_key")
    assert isinstance(wrapped, bytes)
    assert key.secret not in wrapped
    assert repr(key.secret)[2:-1] not in repr(key)


async def test_content_keys_open_one_version_and_do_not_lead_back(data_keys: DataKeys) -> None:
    key = await data_keys.ensure(ANN)
    first, second = key.content_key("v1"), key.content_key("v2")
    assert len({first, second, key.secret}) == 3
    sealed = seal(first, b"content", context=b"v1")
    assert unseal(first, sealed, context=b"v1") == b"content"
    for other in (second, key.secret):
        with pytest.raises(SealBroken):
            unseal(other, sealed, context=b"v1")


async def test_a_destroyed_key_is_gone_for_every_process_at_once(
    database: Database, data_keys: DataKeys, file: KeyFile, storage: ObjectStorage
) -> None:
    """The object may stay in the bucket, in its old versions and in backups: nobody can read it."""
    key = await data_keys.ensure(ANN)
    await storage.put("tenants/default/users/ann/versions/v1", seal(key.content_key("v1"), b"secret", context=b"v1"))
    elsewhere = DataKeys(database, KeyFile(file._path))
    assert await elsewhere.open(key.id) == key.secret  # and remembers it
    assert await data_keys.destroy(ANN, actor="tester", why="asked to") == key.id
    for process in (data_keys, elsewhere, DataKeys(database, file)):
        with pytest.raises(DataKeyDestroyed):
            await process.open(key.id)
    left = await storage.get("tenants/default/users/ann/versions/v1")
    assert b"secret" not in left
    assert await rows(database, "select wrapped, master_key_id from data_key") == [(None, None)]
    audit = await rows(database, 'select actor, action, tenant, subject, "from", why from audit')
    assert audit == [("tester", "data-key-destroyed", "default", subject_of(ANN), key.id, "asked to")]


async def test_after_a_destruction_the_owner_begins_anew(data_keys: DataKeys) -> None:
    old = await data_keys.ensure(ANN)
    assert await data_keys.destroy(ANN, actor="tester", why="w") == old.id
    assert await data_keys.destroy(ANN, actor="tester", why="w") is None
    new = await data_keys.ensure(ANN)
    assert {new.id, new.secret} & {old.id, old.secret} == set()
    with pytest.raises(DataKeyDestroyed):
        await data_keys.open(old.id)


async def test_a_key_that_never_was_is_a_key_that_nobody_has(data_keys: DataKeys) -> None:
    for unknown in ("k" + "0" * 32, "", "no"):
        with pytest.raises(DataKeyDestroyed):
            await data_keys.open(unknown)


async def test_a_row_that_was_tampered_with_does_not_open(database: Database, file: KeyFile) -> None:
    first, second = [await DataKeys(database, file).ensure(owner) for owner in (ANN, BOB)]
    await rows(
        database,
        f"update data_key set wrapped = (select wrapped from data_key where id = '{second.id}')"
        f" where id = '{first.id}' returning id",
    )
    with pytest.raises(SealBroken):
        await DataKeys(database, file).open(first.id)


async def test_rotation_changes_every_wrapping_and_no_key(
    database: Database, data_keys: DataKeys, file: KeyFile, storage: ObjectStorage
) -> None:
    owners = [Owner(tenant="default", user=f"u{number}") for number in range(230)]
    keys = [await data_keys.ensure(owner) for owner in owners]
    await data_keys.destroy(owners[7], actor="tester", why="w")
    await storage.put("sealed", seal(keys[0].content_key("v1"), b"content", context=b"v1"))
    etag = (await storage.head("sealed")).etag
    old, new = await file.primary_id(), file.add_primary()
    told: list[tuple[int, int]] = []
    done = await rewrap_data_keys(database, file, actor="tester", on_progress=lambda d, t: told.append((d, t)))
    assert (done.master_key_id, done.rewrapped, done.unreadable) == (new, 229, ())
    assert told == [(0, 229), (100, 229), (200, 229), (229, 229)]
    found = await rows(database, "select distinct master_key_id from data_key where wrapped is not null")
    assert found == [(new,)]
    await forget_master_key(database, file, old, actor="tester")
    fresh = DataKeys(database, KeyFile(file._path))
    opened = [await fresh.open(key.id) for key in keys[:7]]
    assert opened == [key.secret for key in keys[:7]]
    assert (await storage.head("sealed")).etag == etag
    content = unseal((await fresh.ensure(owners[0])).content_key("v1"), await storage.get("sealed"), context=b"v1")
    assert content == b"content"
    again = await rewrap_data_keys(database, file, actor="tester")
    assert again.rewrapped == 0
    with pytest.raises(DataKeyDestroyed):
        await fresh.open(keys[7].id)


async def test_a_rotation_that_was_killed_is_finished_by_the_next(
    database: Database, data_keys: DataKeys, file: KeyFile
) -> None:
    keys = [await data_keys.ensure(Owner(tenant="default", user=f"u{number}")) for number in range(150)]
    file.add_primary()

    def die(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await rewrap_data_keys(database, file, actor="tester", on_progress=die)
    assert [await DataKeys(database, file).open(key.id) for key in keys] == [key.secret for key in keys]
    assert (await rewrap_data_keys(database, file, actor="tester")).rewrapped == 50
    assert [await DataKeys(database, file).open(key.id) for key in keys] == [key.secret for key in keys]


async def test_a_key_that_is_destroyed_during_a_rotation_stays_destroyed(
    database: Database, data_keys: DataKeys, file: KeyFile
) -> None:
    key = await data_keys.ensure(ANN)
    file.add_primary()
    waiting, going_on = asyncio.Event(), asyncio.Event()

    class Slow(KeyFile):
        async def wrap(self, data_key: bytes, context: object) -> tuple[str, bytes]:
            waiting.set()
            await going_on.wait()
            return await super().wrap(data_key, context)  # type: ignore[arg-type]

    rotation = asyncio.create_task(rewrap_data_keys(database, Slow(file._path), actor="tester"))
    await waiting.wait()
    await data_keys.destroy(ANN, actor="tester", why="w")
    going_on.set()
    assert (await rotation).rewrapped == 0
    with pytest.raises(DataKeyDestroyed):
        await data_keys.open(key.id)


async def test_rotation_goes_on_past_keys_that_nothing_opens(
    database: Database, data_keys: DataKeys, file: KeyFile
) -> None:
    lost, kept = [await data_keys.ensure(owner) for owner in (ANN, BOB)]
    await rows(database, f"update data_key set master_key_id = 'file:lost' where id = '{lost.id}' returning id")
    new = file.add_primary()
    done = await rewrap_data_keys(database, file, actor="tester")
    assert (done.master_key_id, done.rewrapped, done.unreadable) == (new, 1, (lost.id,))
    assert await DataKeys(database, file).open(kept.id) == kept.secret
    with pytest.raises(MasterKeyMissing):
        await DataKeys(database, file).open(lost.id)


async def test_a_master_key_is_not_forgotten_while_it_wraps(
    database: Database, data_keys: DataKeys, file: KeyFile
) -> None:
    key = await data_keys.ensure(ANN)
    old = await file.primary_id()
    file.add_primary()
    with pytest.raises(MasterKeyInUse, match="1 data keys"):
        await forget_master_key(database, file, old, actor="tester")
    with pytest.raises(MasterKeyInUse, match="primary"):
        await forget_master_key(database, file, await file.primary_id(), actor="tester")
    with pytest.raises(MasterKeyNotFound):
        await forget_master_key(database, file, "file:no", actor="tester")
    assert await DataKeys(database, file).open(key.id) == key.secret
    assert await rows(database, "select count(*) from audit where action = 'master-key-forgotten'") == [(0,)]


async def test_a_key_that_is_being_made_holds_its_master_key(database: Database, file: KeyFile) -> None:
    """Between reading the primary key and adding the row, nobody may forget what was read."""
    old = await file.primary_id()
    waiting, going_on = asyncio.Event(), asyncio.Event()

    class Slow(KeyFile):
        async def wrap(self, data_key: bytes, context: object) -> tuple[str, bytes]:
            wrapped = await super().wrap(data_key, context)  # type: ignore[arg-type]
            waiting.set()
            await going_on.wait()
            return wrapped

    making = asyncio.create_task(DataKeys(database, Slow(file._path)).ensure(ANN))
    await waiting.wait()
    file.add_primary()
    forgetting = asyncio.create_task(forget_master_key(database, file, old, actor="tester"))
    await asyncio.sleep(0.3)
    assert not forgetting.done()
    going_on.set()
    made: DataKey = await making
    with pytest.raises(MasterKeyInUse):
        await forgetting
    assert await DataKeys(database, file).open(made.id) == made.secret
