"""Resolve, aliases, listings and downloads."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import text

from kit.database import Database
from kit.storage import ObjectStorage
from registry.client import RegistryClient, draft_from_directory
from registry.errors import (
    AdapterNotFound,
    AliasConflict,
    AliasNotFound,
    ArtifactMissing,
    DigestMismatch,
    InvalidReference,
    NotServable,
    VersionNotFound,
)
from registry.manifest import CONFIG_FILE, WEIGHTS_FILE, AdapterRef, Manifest, Owner
from tests.support.adapters import BASE, write_adapter
from tests.support.registry_server import OWNER

LIVE = AdapterRef.parse("users/ann")


async def publish(client: RegistryClient, directory: Path, *, user: str = "ann", seed: int = 0) -> Manifest:
    write_adapter(directory, seed=seed)
    owner = Owner(tenant="default", user=user)
    return await client.publish(directory, draft=draft_from_directory(directory, owner=owner, base=BASE))


async def move(client: RegistryClient, to: str, *, expected: str | None) -> None:
    await client.move_alias(OWNER, "profile", "live", version_id=to, expected_version_id=expected, why="because")


async def test_an_alias_and_a_number_resolve_to_the_same_version(client: RegistryClient, tmp_path: Path) -> None:
    manifest = await publish(client, tmp_path / "a")
    await move(client, manifest.version_id, expected=None)
    for ref in (LIVE, AdapterRef.parse("users/ann@1")):
        assert (await client.resolve(ref)).manifest == manifest


async def test_what_is_not_there_is_refused_by_what_is_missing(client: RegistryClient, tmp_path: Path) -> None:
    with pytest.raises(AdapterNotFound):
        await client.resolve(LIVE)
    await publish(client, tmp_path / "a")
    with pytest.raises(AliasNotFound):
        await client.resolve(LIVE)
    for number in ("2", "99999999999999999999"):
        with pytest.raises(VersionNotFound):
            await client.resolve(AdapterRef.parse(f"users/ann@{number}"))
    with pytest.raises(AdapterNotFound):
        await client.resolve(AdapterRef.parse("users/ann", tenant="other"))
    with pytest.raises(VersionNotFound):
        await client.get_version("v" + "0" * 32)


async def test_a_number_that_is_not_ready_does_not_resolve(client: RegistryClient, tmp_path: Path) -> None:
    write_adapter(tmp_path / "a")
    await client.begin(draft_from_directory(tmp_path / "a", owner=OWNER, base=BASE))
    with pytest.raises(NotServable, match="pending"):
        await client.resolve(AdapterRef.parse("users/ann@1"))


async def test_an_alias_moves_only_from_where_the_caller_saw_it(
    client: RegistryClient, database: Database, tmp_path: Path
) -> None:
    a, b = [(await publish(client, tmp_path / str(seed), seed=seed)).version_id for seed in (1, 2)]
    assert await client.get_alias(OWNER, "profile", "live") is None
    await move(client, a, expected=None)
    assert await client.get_alias(OWNER, "profile", "live") == a
    with pytest.raises(AliasConflict) as caught:
        await move(client, b, expected=None)
    assert caught.value.details == {"current_version_id": a}
    with pytest.raises(AliasConflict):
        await move(client, b, expected="v" + "0" * 32)
    await move(client, b, expected=a)
    assert (await client.resolve(LIVE)).manifest.version_id == b
    async with database.transaction() as session:
        rows = (
            await session.execute(
                text("""select actor, "from", "to", why from audit where action = 'alias live'
                                              order by id""")
            )
        ).all()
    assert [tuple(row) for row in rows] == [("test", None, a, "because"), ("test", a, b, "because")]


async def test_moving_an_alias_to_where_it_is_leaves_no_second_entry(
    client: RegistryClient, database: Database, tmp_path: Path
) -> None:
    version_id = (await publish(client, tmp_path / "a")).version_id
    for expected in (None, None, version_id):
        await move(client, version_id, expected=expected)
    async with database.transaction() as session:
        assert await session.scalar(text("select count(*) from audit where action = 'alias live'")) == 1


async def test_of_racing_moves_exactly_one_wins(client: RegistryClient, tmp_path: Path) -> None:
    versions = [(await publish(client, tmp_path / str(seed), seed=seed)).version_id for seed in range(6)]
    await move(client, versions[0], expected=None)
    outcomes = await asyncio.gather(
        *[move(client, version, expected=versions[0]) for version in versions[1:]], return_exceptions=True
    )
    assert outcomes.count(None) == 1
    assert sum(isinstance(outcome, AliasConflict) for outcome in outcomes) == 4
    assert await client.get_alias(OWNER, "profile", "live") == versions[1:][outcomes.index(None)]


async def test_an_alias_cannot_name_what_is_not_ready_or_not_this_adapters(
    client: RegistryClient, tmp_path: Path
) -> None:
    await publish(client, tmp_path / "a")
    bobs = await publish(client, tmp_path / "b", user="bob")
    with pytest.raises(VersionNotFound):
        await move(client, bobs.version_id, expected=None)
    write_adapter(tmp_path / "c", seed=9)
    pending = await client.begin(draft_from_directory(tmp_path / "c", owner=OWNER, base=BASE))
    with pytest.raises(NotServable):
        await move(client, pending.version_id, expected=None)
    assert await client.get_alias(OWNER, "profile", "live") is None


async def test_an_alias_of_digits_is_refused(client: RegistryClient, tmp_path: Path) -> None:
    manifest = await publish(client, tmp_path / "a")
    with pytest.raises(InvalidReference, match="version number") as caught:
        await client.move_alias(OWNER, "profile", "7", version_id=manifest.version_id, expected_version_id=None)
    assert caught.value.field == "alias"


async def test_listing_pages_through_every_adapter_once(client: RegistryClient, tmp_path: Path) -> None:
    for i in range(5):
        await publish(client, tmp_path / str(i), user=f"user-{i}")
    manifest = await publish(client, tmp_path / "x", user="ann")
    await move(client, manifest.version_id, expected=None)
    seen, cursor = [], None
    while True:
        page = await client.list_adapters("default", cursor=cursor, limit=2)
        seen += [found.owner.user for found in page.adapters]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == [*(f"user-{i}" for i in range(5)), "ann"]
    (only,) = (await client.list_adapters("default", user="ann")).adapters
    assert only.aliases == {"live": manifest.version_id}
    assert (await client.list_adapters("other")).adapters == ()
    with pytest.raises(InvalidReference):
        await client.list_adapters("default", cursor="made up")
    with pytest.raises(AdapterNotFound):
        await client.list_versions(OWNER, "nothing")


async def test_a_tampered_object_is_never_installed(
    client: RegistryClient, storage: ObjectStorage, tmp_path: Path
) -> None:
    manifest = await publish(client, tmp_path / "a")
    resolution = await client.get_version(manifest.version_id)
    (sealed,) = [found.key for found in await storage.list("tenants/")]
    original = await storage.get(sealed)
    before = sorted(tmp_path.iterdir())
    for data in (bytes(len(original)), original + b"x", original[:-1], b""):
        await storage.put(sealed, data)
        with pytest.raises(DigestMismatch):
            await client.download(resolution, tmp_path / "target")
        assert sorted(tmp_path.iterdir()) == before
    await storage.delete(sealed)
    with pytest.raises(ArtifactMissing):
        await client.download(resolution, tmp_path / "target")
    assert sorted(tmp_path.iterdir()) == before


async def test_racing_downloads_make_one_whole_directory(client: RegistryClient, tmp_path: Path) -> None:
    manifest = await publish(client, tmp_path / "a")
    resolution = await client.get_version(manifest.version_id)
    await asyncio.gather(*[client.download(resolution, tmp_path / "cache" / "target") for _ in range(4)])
    await client.download(resolution, tmp_path / "cache" / "target")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["target"]
    assert sorted(path.name for path in (tmp_path / "cache" / "target").iterdir()) == [CONFIG_FILE, WEIGHTS_FILE]


async def test_a_directory_that_holds_something_else_is_left_alone(client: RegistryClient, tmp_path: Path) -> None:
    manifest = await publish(client, tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine.txt").write_text("mine")
    with pytest.raises(DigestMismatch):
        await client.download(await client.get_version(manifest.version_id), tmp_path / "b")
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["mine.txt"]
