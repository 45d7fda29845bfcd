"""Listing, showing, comparing, lineage: what an operator asks of a registry with many adapters."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import event

from kit.database import Database
from registry.catalog.resolver import Resolver
from registry.client import RegistryClient
from registry.errors import (
    AdapterNotFound,
    AliasNotFound,
    BaseModelNotFound,
    InvalidCursor,
    NotServable,
    VersionNotFound,
)
from registry.manifest import AdapterRef, Owner
from tests.support.adapters import BASE
from tests.support.catalog import OTHER_BASE, add_bases, add_version, execute
from tests.support.registry_server import TOKEN

ANN = Owner(tenant="default", user="ann")


@pytest.fixture
async def client(registry_url: str, database: Database) -> AsyncIterator[RegistryClient]:
    await add_bases(database)
    async with RegistryClient(url=registry_url, token=TOKEN, actor="test") as client:
        yield client


@pytest.fixture
async def http(registry_url: str) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(timeout=60, base_url=registry_url, headers=headers) as http:
        yield http


async def listed(client: RegistryClient, *, limit: int = 2, **filters: Any) -> list[str]:
    """Walk every page and return user/adapter of what is on them."""
    found, cursor = [], None
    while True:
        page = await client.list_adapters("default", cursor=cursor, limit=limit, **filters)
        assert len(page.adapters) <= limit
        found += [f"{each.owner.user}/{each.adapter}" for each in page.adapters]
        cursor = page.next_cursor
        if cursor is None:
            return found


async def test_pages_show_every_adapter_once_in_both_orders(client: RegistryClient, database: Database) -> None:
    users = ["zoe", "ann", "Ann", "a.b", "a-b", "a_b", "~"]
    for user in users:
        await add_version(database, user=user)
    await add_version(database, user="ann", adapter="style")
    await add_version(database, user="ann", tenant="other")
    assert await listed(client) == [f"{user}/profile" for user in users] + ["ann/style"]
    assert await listed(client, search="a") == ["a-b/profile", "a.b/profile", "a_b/profile", "ann/profile", "ann/style"]
    assert await listed(client, user="ann") == ["ann/profile", "ann/style"]
    assert await listed(client, user="~") == ["~/profile"]
    assert await listed(client, search="ann/s") == ["ann/style"]
    assert await listed(client, search="ann/") == ["ann/profile", "ann/style"]
    assert await listed(client, search="nobody") == []


async def test_adapters_that_come_and_go_neither_repeat_nor_hide_others(
    client: RegistryClient, database: Database
) -> None:
    for number in range(6):
        await add_version(database, user=f"user-{number}")
    first = await client.list_adapters("default", limit=3)
    await add_version(database, user="newcomer")
    rest = await client.list_adapters("default", limit=10, cursor=first.next_cursor)
    assert [each.owner.user for each in rest.adapters] == ["user-3", "user-4", "user-5", "newcomer"]


async def test_filters_choose_adapters_by_what_their_versions_are(client: RegistryClient, database: Database) -> None:
    await add_version(database, user="ann", live=True)
    await add_version(database, user="bob", state="retired")
    await add_version(database, user="cid", base=OTHER_BASE, live=True)
    await add_version(database, user="dan", base=OTHER_BASE, state="suspended")
    await add_version(database, user="dan", number=2, transcripts=("t",))
    await execute(
        database,
        "insert into alias (adapter_id, name, version_id) select adapter_id, 'candidate', version_id from "
        "adapter_version join adapter on adapter.id = adapter_id where user_id = 'dan' and number = 2",
    )
    await execute(
        database,
        "insert into suspension (tenant, user_id, adapter, actor, why) values ('default', 'ann', '', 't', 't'), "
        "('default', 'cid', 'other', 't', 't')",
    )
    assert await listed(client, base=OTHER_BASE.id) == ["cid/profile", "dan/profile"]
    assert await listed(client, alias="live") == ["ann/profile", "cid/profile"]
    assert await listed(client, alias="candidate") == ["dan/profile"]
    assert await listed(client, state="retired") == ["bob/profile"]
    assert await listed(client, state="ready") == ["ann/profile", "cid/profile", "dan/profile"]
    assert await listed(client, base=OTHER_BASE.id, state="ready") == ["cid/profile"]
    assert await listed(client, suspended=True) == ["ann/profile"]
    assert await listed(client, suspended=False, alias="live") == ["cid/profile"]
    assert await listed(client, search="d", state="suspended") == ["dan/profile"]


async def test_adapters_created_since_a_moment(client: RegistryClient, database: Database) -> None:
    await add_version(database, user="old")
    await execute(database, "update adapter set created_at = now() - interval '2 days'")
    await add_version(database, user="new")
    day_ago = datetime.now(UTC) - timedelta(days=1)
    assert await listed(client, created_since=day_ago) == ["new/profile"]
    assert await listed(client, created_since=day_ago - timedelta(days=7)) == ["old/profile", "new/profile"]
    assert await listed(client, created_since=day_ago, user="old") == []


async def test_a_listing_says_what_a_table_shows_without_another_call(
    client: RegistryClient, database: Database
) -> None:
    await add_version(database, user="ann", state="retired")
    live = await add_version(
        database, user="ann", number=2, live=True, evaluation={"held_out": {"own_loss": 2.5}, "odd": "x"}
    )
    await add_version(database, user="bob", live=True, evaluation={"held_out": {"own_loss": "a word"}})
    await add_version(database, user="cid", state="pending")
    ann, bob, cid = (await client.list_adapters("default")).adapters
    assert (ann.versions, ann.suspended, ann.aliases) == (2, False, {"live": live.version_id})
    assert ann.live is not None
    assert (ann.live.version, ann.live.own_loss, ann.live.base_id, ann.live.size_bytes) == (2, 2.5, BASE.id, 1010)
    assert bob.live is not None
    assert bob.live.own_loss is None
    assert (cid.live, cid.aliases, cid.versions) == (None, {}, 1)
    shown = await client.show_adapter(ANN, "profile")
    assert shown.states == {"ready": 1, "retired": 1}
    assert shown.live == ann.live
    with pytest.raises(AdapterNotFound):
        await client.show_adapter(ANN, "nothing")


@pytest.mark.parametrize(
    "cursor",
    [
        "made up", "1", "é", "", "W10", "bnVsbA", "e30",
        "WyJjcmVhdGVkIiwibm90IGEgdGltZSIsMV0", "WyJjcmVhdGVkIiwiMjAyNi0wMS0wMVQwMDowMDowMCIsMV0", "W" * 500,
        base64.urlsafe_b64encode(json.dumps(["created", "2026-01-01T00:00:00+00:00", 2**63]).encode()).decode(),
        base64.urlsafe_b64encode(json.dumps(["created", "2026-01-01T00:00:00+00:00", True]).encode()).decode(),
        base64.urlsafe_b64encode(json.dumps(["names", "a", "b"]).encode()).decode(),
        base64.urlsafe_b64encode(json.dumps(["created", "0001-01-01T00:00:00+14:00", 1]).encode()).decode(),
    ],
)  # fmt: skip
async def test_a_cursor_that_no_page_gave_is_refused(http: httpx.AsyncClient, cursor: str) -> None:
    answer = await http.get("/v1/tenants/default/adapters", params={"cursor": cursor})
    assert answer.status_code == 422, answer.text


async def test_a_cursor_of_another_listing_is_refused(
    client: RegistryClient, http: httpx.AsyncClient, database: Database
) -> None:
    for user in ("ann", "bob"):
        await add_version(database, user=user)
    page = await client.list_adapters("default", limit=1)
    with pytest.raises(InvalidCursor):
        await client.list_adapters("default", search="a", cursor=page.next_cursor)
    answer = await http.get("/v1/tenants/default/adapters", params={"search": "a", "cursor": page.next_cursor})
    assert answer.json()["type"] == "urn:lorry:problem:invalid-cursor"
    assert answer.json()["title"] == "That cursor was not given by an earlier page of this listing."


async def test_versions_are_paged_the_newest_first(client: RegistryClient, database: Database) -> None:
    for number in range(1, 6):
        await add_version(database, user="ann", number=number, live=number == 3)
    seen, cursor = [], None
    while True:
        page = await client.page_versions(ANN, "profile", cursor=cursor, limit=2)
        seen += page.versions
        cursor = page.next_cursor
        if cursor is None:
            break
    assert [each.version for each in seen] == [5, 4, 3, 2, 1]
    assert [each.aliases for each in seen] == [(), (), ("live",), (), ()]
    assert await client.list_versions(ANN, "profile") == seen
    with pytest.raises(AdapterNotFound):
        await client.page_versions(ANN, "nothing")


async def test_a_version_is_shown_in_every_state(client: RegistryClient, database: Database) -> None:
    manifest = await add_version(database, user="ann", state="suspended")
    live = await add_version(database, user="ann", number=2, live=True)
    shown = await client.show_version(AdapterRef(owner=ANN, selector="1"))
    assert (shown.state, shown.obstacle, shown.manifest) == ("suspended", "suspended", manifest)
    assert shown.suspended_at is not None
    named = await client.show_version(AdapterRef(owner=ANN))
    assert (named.version_id, named.obstacle, named.aliases) == (live.version_id, None, ("live",))
    await execute(
        database,
        "insert into evaluation_report (version_id, actor, report)"
        " select :id, 't', json_build_object('n', n) from generate_series(1, 2) n",
        id=live.version_id,
    )
    await execute(database, "update adapter_version set state = 'erased', manifest = null where number = 1")
    erased = await client.show_version(AdapterRef(owner=ANN, selector="1"))
    assert (erased.state, erased.manifest, erased.obstacle) == ("erased", None, "erased")
    with_report = await client.show_version(AdapterRef(owner=ANN, selector="2"))
    assert with_report.report is not None
    assert with_report.report["report"] == {"n": 2}
    for selector, error in (("3", VersionNotFound), ("99999999999", VersionNotFound), ("nope", AliasNotFound)):
        with pytest.raises(error):
            await client.show_version(AdapterRef(owner=ANN, selector=selector))


async def test_versions_are_compared_field_by_field(client: RegistryClient, database: Database) -> None:
    await add_version(
        database, user="ann", rank=8, transcripts=("t1", "t2"), evaluation={"held_out": {"own_loss": 2.5}, "n": 1}
    )
    await add_version(
        database, user="ann", number=2, rank=16, live=True, transcripts=("t2", "t3"),
        evaluation={"held_out": {"own_loss": 2.0}, "n": 1},
    )  # fmt: skip
    found = await client.compare_versions(ANN, "profile", old="1", new="live")
    assert (found.old.version, found.new.version) == (1, 2)
    changes = {each.field: (each.old, each.new) for each in found.changes}
    assert changes["lora.rank"] == (8, 16)
    assert changes["evaluation.held_out.own_loss"] == (2.5, 2.0)
    assert changes["lineage.seed"] == (1, 2)
    assert "files.adapter_model.safetensors.sha256" in changes
    assert not {"evaluation.n", "lora.alpha", "version", "version_id", "owner.user"} & set(changes)
    (members,) = found.members
    assert (members.field, members.added, members.removed) == ("lineage.transcript_ids", ("t3",), ("t1",))
    same = await client.compare_versions(ANN, "profile", old="2", new="2")
    assert (same.changes, same.members) == ((), ())
    with pytest.raises(VersionNotFound):
        await client.compare_versions(ANN, "profile", old="1", new="9")


async def test_lineage_answers_what_was_trained_on_what(client: RegistryClient, database: Database) -> None:
    one = await add_version(database, user="ann", transcripts=("t1", "t2"), live=True)
    two = await add_version(database, user="bob", transcripts=("t2",), base=OTHER_BASE)
    three = await add_version(database, user="bob", number=2, transcripts=("t2",), state="retired")
    await add_version(database, user="eve", tenant="other", transcripts=("t2",))

    async def found(**wanted: Any) -> list[str]:
        ids, cursor = [], None
        while True:
            page = await client.find_versions("default", cursor=cursor, limit=1, **wanted)
            ids += [each.version_id for each in page.versions]
            cursor = page.next_cursor
            if cursor is None:
                return ids

    assert await found(transcript="t1") == [one.version_id]
    assert await found(transcript="t2") == [each.version_id for each in (one, two, three)]
    assert await found(transcript="t2", state="ready") == [one.version_id, two.version_id]
    assert await found(base=OTHER_BASE.id) == [two.version_id]
    assert await found(transcript="t2", user="bob") == [two.version_id, three.version_id]
    assert await found(transcript="t9") == []
    (first,) = (await client.find_versions("default", transcript="t1")).versions
    assert (first.owner, first.adapter, first.version, first.aliases) == (ANN, "profile", 1, ("live",))


async def test_bases_are_shown_by_an_id_with_slashes(client: RegistryClient) -> None:
    assert (await client.show_base(OTHER_BASE.id)).weights_sha256 == OTHER_BASE.weights_sha256
    with pytest.raises(BaseModelNotFound):
        await client.show_base("org/unknown")


async def test_resolve_is_one_statement(database: Database) -> None:
    await add_bases(database)
    manifest = await add_version(database, user="ann", live=True)
    statements: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        statements.append(statement)

    event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    found = await Resolver(database).resolve(AdapterRef(owner=ANN))
    assert len(statements) == 1
    assert json.loads(found.text) == manifest.model_dump(mode="json")
    assert found.digest == manifest.digest


@pytest.mark.parametrize(
    ("change", "obstacle"),
    [
        ("update adapter_version set state = 'suspended'", "suspended"),
        ("update adapter_version set state = 'retired'", "retired"),
        (
            "insert into suspension (tenant, user_id, adapter, actor, why) values ('default', 'ann', '', 't', 't')",
            "user suspended",
        ),
        (
            "insert into suspension (tenant, user_id, adapter, actor, why)"
            " values ('default', 'ann', 'profile', 't', 't')",
            "adapter suspended",
        ),
    ],
)
async def test_what_may_not_be_served_does_not_resolve_and_says_why(
    client: RegistryClient, http: httpx.AsyncClient, database: Database, change: str, obstacle: str
) -> None:
    manifest = await add_version(database, user="ann", live=True)
    path = "/v1/tenants/default/users/ann/adapters/profile/resolution"
    tag = (await http.get(path)).headers["etag"]
    assert tag == f'"{manifest.digest}"'
    await execute(database, change)
    for selector in ("live", "1"):
        with pytest.raises(NotServable) as caught:
            await client.resolve(AdapterRef(owner=ANN, selector=selector))
        assert caught.value.details["obstacle"] == obstacle
    stale = await http.get(path, headers={"if-none-match": tag})
    assert stale.status_code == 409


async def test_a_reader_that_has_the_answer_is_not_sent_it_again(
    client: RegistryClient, http: httpx.AsyncClient, database: Database
) -> None:
    await add_version(database, user="ann", live=True)
    adapter = "/v1/tenants/default/users/ann/adapters/profile"
    paths = [
        adapter,
        f"{adapter}/versions",
        f"{adapter}/versions/1",
        f"{adapter}/resolution",
        f"{adapter}/aliases/live",
    ]
    tags = {}
    for path in paths:
        answer = await http.get(path)
        tags[path] = answer.headers["etag"]
        for condition in (tags[path], f"W/{tags[path]}", f'"x", {tags[path]}', "*"):
            again = await http.get(path, headers={"if-none-match": condition})
            assert (again.status_code, again.content) == (304, b""), path
            assert again.headers["etag"] == tags[path]
        assert (await http.get(path, headers={"if-none-match": '"x"'})).status_code == 200
    await add_version(database, user="ann", number=2, live=True)
    for path in paths[:2] + paths[3:]:
        changed = await http.get(path, headers={"if-none-match": tags[path]})
        assert changed.status_code == 200, path
        assert changed.headers["etag"] != tags[path]


async def test_an_alias_moves_on_condition_of_its_etag(http: httpx.AsyncClient, database: Database) -> None:
    await add_bases(database)
    one = (await add_version(database, user="ann")).version_id
    two = (await add_version(database, user="ann", number=2)).version_id
    path = "/v1/tenants/default/users/ann/adapters/profile/aliases/beta"

    async def move(version_id: str, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await http.put(path, json={"version_id": version_id}, headers=named)

    assert (await move(one, if_match='"v0"')).status_code == 412
    assert (await move(one, if_none_match="*")).status_code == 200
    tag = (await http.get(path)).headers["etag"]
    stale = await move(two, if_none_match="*")
    assert stale.status_code == 412
    assert stale.json()["type"] == "urn:lorry:problem:precondition-failed"
    assert stale.json()["current_version_id"] == one
    assert (await move(two, if_match=tag)).status_code == 200
    assert (await move(one, if_match=tag)).status_code == 412
    for bad in ("*", "no tag", '"a", "b"'):
        assert (await move(one, if_match=bad)).status_code == 422
    assert (await move(one, if_match=tag, if_none_match="*")).status_code == 422
