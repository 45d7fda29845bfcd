"""Suspending, resuming and retiring; the audit trail that all of it leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.database import Database
from kit.storage import ObjectStorage
from registry.client import RegistryClient
from registry.errors import (
    AdapterNotFound,
    ArtifactMissing,
    IllegalTransition,
    InvalidReference,
    NotServable,
    VersionInUse,
    VersionNotFound,
)
from registry.lifecycle.policy import TenantPolicy
from registry.manifest import AdapterRef, Owner
from registry.repository import subject_of
from tests.support.registry_server import OWNER
from tests.support.steering import ADAPTER, aliases, audit, make_live, publish, publish_many, rows, states

LIVE = AdapterRef.parse("users/ann")
NOBODY = "v" + "0" * 32


async def resolves(client: RegistryClient, ref: AdapterRef = LIVE) -> bool:
    try:
        await client.resolve(ref)
    except NotServable:
        return False
    return True


async def test_a_suspended_version_does_not_resolve_until_it_is_resumed(
    client: RegistryClient, database: Database, tmp_path: Path
) -> None:
    version_id = await publish(client, tmp_path)
    await make_live(client, version_id)
    for _ in range(2):
        state = await client.lifecycle.suspend_version(version_id, why="says odd things")
        assert (state.version, state.state, state.reason) == (1, "suspended", "says odd things")
    assert not await resolves(client)
    assert (await aliases(database)) == {"live": version_id}
    for _ in range(2):
        state = await client.lifecycle.resume_version(version_id, why="it was the prompt")
        assert (state.state, state.reason) == ("ready", None)
    assert await resolves(client)
    assert (await audit(database, version_id))[-2:] == [
        ("test", "suspended", "ready", "suspended", "says odd things"),
        ("test", "resumed", "suspended", "ready", "it was the prompt"),
    ]


async def test_a_version_whose_bytes_are_gone_is_not_resumed(
    client: RegistryClient, database: Database, storage: ObjectStorage, tmp_path: Path
) -> None:
    version_id = await publish(client, tmp_path)
    await client.lifecycle.suspend_version(version_id, why="x")
    await storage.erase("tenants/")
    with pytest.raises(ArtifactMissing, match="missing"):
        await client.lifecycle.resume_version(version_id, why="y")
    assert await states(database) == {version_id: "suspended"}


@pytest.mark.parametrize("adapter", [None, ADAPTER])
async def test_a_suspended_owner_or_adapter_serves_nothing_not_even_what_is_published_meanwhile(
    client: RegistryClient, database: Database, tmp_path: Path, adapter: str | None
) -> None:
    bob = Owner(tenant="default", user="bob")
    await make_live(client, await publish(client, tmp_path))
    bobs = await publish(client, tmp_path, owner=bob)
    await make_live(client, bobs, owner=bob)
    for why in ("leaked", "again"):
        suspension = await client.lifecycle.suspend(OWNER, adapter, why=why)
        assert (suspension.owner, suspension.adapter, suspension.why) == (OWNER, adapter, "leaked")
    await publish(client, tmp_path, seed=1)
    assert not await resolves(client)
    assert not await resolves(client, AdapterRef.parse("users/ann@2"))
    assert await resolves(client, AdapterRef.parse("users/bob"))
    listed = await client.lifecycle.list_suspensions("default")
    assert [(each.owner.user, each.adapter) for each in listed.suspensions] == [("ann", adapter)]
    assert listed.next_cursor is None
    for _ in range(2):
        await client.lifecycle.resume(OWNER, adapter, why="sealed again")
    assert await resolves(client)
    assert (await client.lifecycle.list_suspensions("default")).suspensions == ()
    trail = (await client.lifecycle.audit_of(OWNER, adapter)).entries
    subject = "owner" if adapter is None else "adapter"
    assert [(e.action, e.before, e.after, e.why) for e in trail if "end" in e.action or "resume" in e.action] == [
        (f"resume-{subject}", "suspended", "serving", "sealed again"),
        (f"suspend-{subject}", "serving", "suspended", "leaked"),
    ]


async def test_an_adapters_trail_tells_of_its_whole_owner_and_of_no_other_adapter(
    client: RegistryClient, tmp_path: Path
) -> None:
    for name in (ADAPTER, "style"):
        await publish(client, tmp_path, adapter=name)
        await client.lifecycle.suspend(OWNER, name, why=name)
    await client.lifecycle.suspend(OWNER, why="all")
    whole = (await client.lifecycle.audit_of(OWNER)).entries
    suspended = [entry for entry in whole if entry.action.startswith("suspend")]
    assert [(entry.action, entry.why) for entry in suspended] == [
        ("suspend-owner", "all"), ("suspend-adapter", "style"), ("suspend-adapter", ADAPTER),
    ]  # fmt: skip
    assert {entry.subject for entry in suspended} == {subject_of(OWNER)}
    one = (await client.lifecycle.audit_of(OWNER, "style")).entries
    assert [entry.why for entry in one if entry.action.startswith("suspend")] == ["all", "style"]


async def test_an_owners_trail_tells_of_every_adapter_of_theirs_and_of_nobody_elses(
    client: RegistryClient, tmp_path: Path
) -> None:
    first, second = [await publish(client, tmp_path, adapter=name) for name in (ADAPTER, "style")]
    await publish(client, tmp_path, owner=Owner(tenant="default", user="bob"))
    await client.move_alias(OWNER, "style", "mine", version_id=second, expected_version_id=None)
    whole = (await client.lifecycle.audit_of(OWNER)).entries
    assert [entry.version_id for entry in whole if entry.action == "begin"] == [second, first]
    assert {entry.version_id for entry in whole if entry.version_id} == {first, second}
    assert whole[0].action == "alias mine"
    seen, cursor = [], None
    while True:
        page = await client.lifecycle.audit_of(OWNER, cursor=cursor, limit=2)
        seen += page.entries
        cursor = page.next_cursor
        if cursor is None:
            break
    assert tuple(seen) == whole
    await client.lifecycle.erase_owner(OWNER, why="asked to")
    erased = (await client.lifecycle.audit_of(OWNER)).entries
    assert erased[len(erased) - len(whole) :] == whole
    assert {"erase-owner", "data-key-destroyed"} < {entry.action for entry in erased}


async def test_a_misspelt_name_does_not_look_like_a_suspension(client: RegistryClient, tmp_path: Path) -> None:
    await publish(client, tmp_path)
    with pytest.raises(AdapterNotFound):
        await client.lifecycle.suspend(Owner(tenant="default", user="anm"), why="x")
    with pytest.raises(AdapterNotFound):
        await client.lifecycle.suspend(OWNER, "profil", why="x")
    with pytest.raises(VersionNotFound):
        await client.lifecycle.suspend_version(NOBODY, why="x")


async def test_a_reason_is_asked_for(client: RegistryClient, tmp_path: Path) -> None:
    version_id = await publish(client, tmp_path)
    for why in ("", "x" * 1001, "nul\x00"):
        with pytest.raises(InvalidReference) as caught:
            await client.lifecycle.suspend_version(version_id, why=why)
        assert caught.value.field == "why"


async def test_a_tenants_suspensions_are_paged(client: RegistryClient, tmp_path: Path) -> None:
    for user in ("ann", "bob", "cid"):
        owner = Owner(tenant="default", user=user)
        await publish(client, tmp_path, owner=owner)
        await client.lifecycle.suspend(owner, why="x")
        await client.lifecycle.suspend(owner, ADAPTER, why="x")
    seen, cursor = [], None
    while True:
        page = await client.lifecycle.list_suspensions("default", cursor=cursor, limit=4)
        seen += [(each.owner.user, each.adapter) for each in page.suspensions]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == [(user, adapter) for user in ("ann", "bob", "cid") for adapter in (None, ADAPTER)]


async def test_a_version_that_an_alias_names_is_not_retired(
    client: RegistryClient, database: Database, tmp_path: Path
) -> None:
    a, b, c = await publish_many(client, tmp_path, 3)
    await make_live(client, a, b)
    for version_id, names in ((a, ["previous"]), (b, ["live"])):
        with pytest.raises(VersionInUse) as caught:
            await client.lifecycle.retire_version(version_id, why="old")
        assert caught.value.details == {"aliases": names}
    await client.lifecycle.suspend_version(c, why="bad")
    for _ in range(2):
        assert (await client.lifecycle.retire_version(c, why="old")).state == "retired"
    assert (await states(database))[c] == "retired"
    assert (await audit(database, c))[-1] == ("test", "retired", "suspended", "retired", "old")
    for steer in (client.lifecycle.suspend_version, client.lifecycle.resume_version):
        with pytest.raises(IllegalTransition, match="retired"):
            await steer(c, why="x")


async def test_content_that_was_retired_can_be_published_anew(client: RegistryClient, tmp_path: Path) -> None:
    first = await publish(client, tmp_path)
    await client.lifecycle.retire_version(first, why="old")
    second = await publish(client, tmp_path)
    assert second != first
    assert await resolves(client, AdapterRef.parse("users/ann@2"))


async def test_every_step_of_a_version_stands_in_its_trail(
    client: RegistryClient, database: Database, tmp_path: Path
) -> None:
    version_id = await publish(client, tmp_path)
    await client.lifecycle.suspend_version(version_id, why="s")
    await client.lifecycle.resume_version(version_id, why="r")
    await client.lifecycle.retire_version(version_id, why="t")
    await client.lifecycle.erase_version(version_id, why="e")
    trail = (await client.lifecycle.audit_of_version(version_id)).entries[::-1]
    assert [(entry.before, entry.after) for entry in trail if entry.after] == [
        ("pending", "uploaded"),
        ("uploaded", "ready"),
        ("ready", "suspended"),
        ("suspended", "ready"),
        ("ready", "retired"),
        ("retired", "erased"),
    ]
    assert trail[0].action == "begin"
    assert {entry.actor for entry in trail} == {"test"}
    assert [entry.at for entry in trail] == sorted(entry.at for entry in trail)


async def test_the_whole_trail_also_tells_of_bases_and_policies(client: RegistryClient, tmp_path: Path) -> None:
    await publish(client, tmp_path)
    await client.lifecycle.put_policy("default", TenantPolicy(keep_versions=9), why="more room")
    entries = (await client.lifecycle.audit_of_all()).entries
    assert [entry.action for entry in entries][-1] == "register-base"
    assert (entries[0].action, entries[0].tenant, entries[0].before, entries[0].after, entries[0].why) == (
        *("policy", "default", "keep_versions = 3", "keep_versions = 9", "more room"),
    )
    page = await client.lifecycle.audit_of_all(limit=1)
    assert (await client.lifecycle.audit_of_all(cursor=page.next_cursor)).entries == entries[1:]


async def test_trails_are_paged_and_name_no_user(client: RegistryClient, database: Database, tmp_path: Path) -> None:
    version_id = await publish(client, tmp_path)
    for _ in range(3):
        await client.lifecycle.suspend(OWNER, why="x")
        await client.lifecycle.suspend_version(version_id, why="x")
        await client.lifecycle.resume(OWNER, why="x")
        await client.lifecycle.resume_version(version_id, why="x")
    whole = (await client.lifecycle.audit_of(OWNER, ADAPTER)).entries
    assert len([entry for entry in whole if "owner" in entry.action]) == 6
    seen, cursor = [], None
    while True:
        page = await client.lifecycle.audit_of(OWNER, ADAPTER, cursor=cursor, limit=4)
        seen += page.entries
        cursor = page.next_cursor
        if cursor is None:
            break
    assert tuple(seen) == whole
    for (line,) in await rows(database, "select audit::text from audit"):
        assert "ann" not in line
    with pytest.raises(InvalidReference):
        await client.lifecycle.audit_of_version(version_id, cursor="made up")
    with pytest.raises(VersionNotFound):
        await client.lifecycle.audit_of_version(NOBODY)
    with pytest.raises(AdapterNotFound):
        await client.lifecycle.audit_of(OWNER, "nothing")


async def test_reports_are_listed_newest_first_and_the_same_one_attaches_once(
    client: RegistryClient, database: Database, tmp_path: Path
) -> None:
    version_id = await publish(client, tmp_path)
    first = await client.lifecycle.attach_evaluation(version_id, {"gain": 0.5})
    assert await client.lifecycle.attach_evaluation(version_id, {"gain": 0.5}) == first
    second = await client.lifecycle.attach_evaluation(version_id, {"gain": 0.25, "note": "é"})
    assert await client.lifecycle.list_evaluations(version_id) == [second, first]
    assert (await audit(database, version_id))[-1][1] == "evaluation"
    with pytest.raises(VersionNotFound):
        await client.lifecycle.list_evaluations(NOBODY)
    await client.lifecycle.erase_version(version_id, why="asked for")
    with pytest.raises(IllegalTransition):
        await client.lifecycle.attach_evaluation(version_id, {"gain": 1})
    assert await client.lifecycle.list_evaluations(version_id) == []
