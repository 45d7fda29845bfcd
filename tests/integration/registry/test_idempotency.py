"""`Idempotency-Key`: one effect, one answer, whoever asks how often."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from sqlalchemy import text

from kit.database import Database
from registry.app import create_app
from registry.client import RegistryClient
from registry.idempotency.middleware import owner_of
from registry.idempotency.repository import IdempotencyRepository
from registry.manifest import Owner
from registry.openapi import kept_answers
from registry.repository import subject_of
from registry.settings import RegistrySettings
from tests.support.adapters import BASE
from tests.support.catalog import add_bases, add_version
from tests.support.registry_server import TOKEN, serving
from tests.support.steering import let_urls_lapse
from tests.support.waiting import until

BODY = BASE.model_dump(mode="json")
STEERING = ("promote", "rollback")
OTHER = BODY | {"id": "test/other"}


@pytest.fixture
async def http(registry_url: str) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(timeout=60, base_url=registry_url, headers=headers) as http:
        yield http


async def register(http: httpx.AsyncClient, body: object, key: str, **headers: str) -> httpx.Response:
    return await http.post("/v1/bases", json=body, headers={"idempotency-key": key, **headers})


async def audit_entries(database: Database) -> int:
    async with database.transaction() as session:
        return (await session.execute(text("select count(*) from audit where action = 'register-base'"))).scalar_one()


async def test_the_same_request_is_answered_as_it_was(http: httpx.AsyncClient, database: Database) -> None:
    first, second = await register(http, BODY, "k1"), await register(http, BODY, "k1")
    assert first.status_code == second.status_code == 200
    assert first.content == second.content
    assert second.headers["content-type"] == "application/json"
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert await audit_entries(database) == 1


async def test_a_key_that_is_used_for_something_else_is_refused(http: httpx.AsyncClient, database: Database) -> None:
    await register(http, BODY, "k1")
    answer = await register(http, OTHER, "k1")
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:lorry:problem:idempotency-key-reused"
    assert answer.json()["field"] == "idempotency-key"
    assert await audit_entries(database) == 1


async def test_a_request_that_still_runs_is_not_run_twice(http: httpx.AsyncClient, database: Database) -> None:
    digest = await claimed_digest(http, database)
    answer = await register(http, BODY, "k1")
    assert answer.status_code == 409
    assert answer.json()["type"] == "urn:lorry:problem:request-running"
    async with database.transaction() as session:
        await IdempotencyRepository(session).release("operator", "k1", digest=digest)
    assert (await register(http, BODY, "k1")).status_code == 200


async def test_what_a_killed_process_left_running_can_be_run_again(http: httpx.AsyncClient, database: Database) -> None:
    await claimed_digest(http, database)
    async with database.transaction() as session:
        await session.execute(text("update idempotent_request set at = now() - interval '1 hour'"))
    assert (await register(http, BODY, "k1")).status_code == 200


async def test_a_key_is_free_again_after_a_day(http: httpx.AsyncClient, database: Database) -> None:
    await register(http, BODY, "k1")
    async with database.transaction() as session:
        await session.execute(text("update idempotent_request set at = now() - interval '25 hours'"))
    assert (await register(http, OTHER, "k1")).status_code == 200


async def test_a_refusal_changed_nothing_and_is_not_kept(http: httpx.AsyncClient) -> None:
    bad = BODY | {"config_sha256": "x"}
    assert (await register(http, bad, "k1")).status_code == 422
    assert (await register(http, BODY, "k1")).status_code == 200


async def test_nobody_is_answered_from_memory_without_a_token(http: httpx.AsyncClient) -> None:
    await register(http, BODY, "k1")
    answer = await register(http, BODY, "k1", authorization="Bearer of-nothing-at-all")
    assert answer.status_code == 401


async def test_racing_requests_have_one_effect(http: httpx.AsyncClient, database: Database) -> None:
    answers = await asyncio.gather(*[register(http, BODY, "k1") for _ in range(8)])
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert any(answer.status_code == 200 for answer in answers)
    assert await audit_entries(database) == 1
    assert (await register(http, BODY, "k1")).headers["idempotency-replayed"] == "true"


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "\u00e4"])
async def test_a_key_that_is_none_is_refused(http: httpx.AsyncClient, key: str) -> None:
    headers = [(b"idempotency-key", key.encode("latin-1")), (b"content-type", b"application/json")]
    answer = await http.post("/v1/bases", json=BODY, headers=headers)
    assert answer.status_code == 422
    assert answer.json()["field"] == "idempotency-key"


async def test_a_rollback_whose_answer_was_lost_goes_back_once(registry_url: str, database: Database) -> None:
    class Losing(httpx.AsyncHTTPTransport):
        lost = 0

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            answer = await super().handle_async_request(request)
            if request.url.path.endswith("/rollback") and self.lost < 2:
                self.lost += 1
                await answer.aclose()
                raise httpx.ReadError("the answer was lost")
            return answer

    await add_bases(database)
    owner = Owner(tenant="default", user="ann")
    passed = {"gate": {"passed": True}}
    ids = [
        (await add_version(database, user="ann", number=number, evaluation=passed)).version_id for number in (1, 2, 3)
    ]
    async with RegistryClient(url=registry_url, token=TOKEN, transport=Losing()) as client:
        for version_id in ids:
            held = await client.get_alias(owner, "profile", "live")
            await client.move_alias(owner, "profile", "live", version_id=version_id, expected_version_id=held)
        moved = await client.lifecycle.rollback(owner, "profile")
        assert moved.version_id == ids[1]
        assert await client.get_alias(owner, "profile", "live") == ids[1]


async def test_an_answer_that_an_erasure_would_have_to_find_is_not_kept(
    http: httpx.AsyncClient, database: Database
) -> None:
    """What the page of routes says of all that it does not mark."""
    await add_bases(database)
    await add_version(database, user="ann")
    for why in ("x", "y"):
        path, headers = "/v1/tenants/default/users/ann/suspend", {"idempotency-key": "k1"}
        answer = await http.post(path, json={"why": why}, headers=headers)
        assert (answer.status_code, answer.json()["why"]) == (200, "x")
        assert "idempotency-replayed" not in answer.headers
    async with database.transaction() as session:
        assert (await session.execute(text("select count(*) from idempotent_request"))).scalar_one() == 0


async def claimed_digest(http: httpx.AsyncClient, database: Database) -> str:
    """Leave key k1 as a request for `BODY` leaves it while it runs."""
    await register(http, BODY, "k1")
    async with database.transaction() as session:
        statement = "update idempotent_request set status = null, answer = null returning digest"
        return str((await session.execute(text(statement))).scalar_one())


async def test_a_registry_forgets_by_itself_what_nobody_can_ask_for_again(
    registry_settings: RegistrySettings, database: Database
) -> None:
    old = "select 't', 'old-' || n, 'd', now() - interval '2 days' from generate_series(1, 2500) n"
    async with database.transaction() as session:
        await session.execute(text(f"insert into idempotent_request (tenant, key, digest, at) {old}"))
        await IdempotencyRepository(session).claim("t", "new", digest="d", owner=None)
    async with serving(create_app(registry_settings)):

        async def one_is_left() -> bool:
            async with database.reading() as session:
                keys[:] = (await session.execute(text("select key from idempotent_request"))).scalars().all()
            return len(keys) == 1

        keys: list[str] = []
        await until(one_is_left)
    assert not keys[0].startswith("old-")


def test_every_route_whose_answers_are_kept_names_whom_they_are_about_or_is_about_nobody(
    registry_settings: RegistrySettings,
) -> None:
    """An erasure finds kept answers by whom a path names; a route that is about somebody else must `keep_secret`."""
    about_nobody = {"/v1/bases", "/v1/engines/{engine_id}/heartbeat", "/v1/engines/{engine_id}/leave"}
    kept = {path for _, path in kept_answers(create_app(registry_settings))}
    named = {path for path in kept if owner_of(path.format(tenant="t", user="u", adapter="a", engine_id="e"))}
    assert kept - named == about_nobody
    assert named == {f"/v1/tenants/{{tenant}}/users/{{user}}/adapters/{{adapter}}/{verb}" for verb in STEERING}


@pytest.mark.parametrize(
    ("path", "owner"),
    [
        ("/v1/tenants/t/users/ann", ("t", "ann")),
        ("/v1/tenants/t/users/ann/adapters/profile/promote", ("t", "ann")),
        ("/v1/tenants/t/users/~/adapters/profile/promote", ("t", "~")),
        ("/v1/tenants/t/users/a b/adapters/profile/promote", None),
        ("/v1/tenants/t/policy", None),
        ("/v1/bases", None),
        ("/v2/v1/tenants/t/users/ann", None),
    ],
)
def test_a_path_says_whom_a_request_is_about(path: str, owner: tuple[str, str] | None) -> None:
    found = owner_of(path)
    assert (None if found is None else (found.tenant, found.user)) == owner


async def test_who_is_forgotten_loses_their_kept_answers_and_nobody_else_does(
    http: httpx.AsyncClient, client: RegistryClient, database: Database
) -> None:
    """`ready` is a word of many answers, `ann` the name of a user in two tenants, `profile` and `id` are everywhere."""
    await add_bases(database)
    owners = [("default", "ann"), ("other", "ann"), ("default", "ready"), ("default", "anna"), ("default", "profile")]
    passed = {"gate": {"passed": True}}
    for tenant, user in owners:
        ids = [
            (await add_version(database, tenant=tenant, user=user, number=n, evaluation=passed)).version_id
            for n in (1, 2)
        ]
        owner = Owner(tenant=tenant, user=user)
        for version_id in ids:
            held = await client.get_alias(owner, "profile", "live")
            await client.move_alias(owner, "profile", "live", version_id=version_id, expected_version_id=held)
        path = f"/v1/tenants/{tenant}/users/{user}/adapters/profile/rollback"
        answer = await http.post(path, json={}, headers={"idempotency-key": f"{tenant}:rollback:ann:{user}"})
        assert answer.status_code == 200, answer.text
    await register(http, {**BODY, "id": "ready/ann"}, "base-of:ann")
    async with database.transaction() as session:
        words = (await session.execute(text("select key from idempotent_request"))).scalars().all()
    assert len(words) == len(owners) + 1
    assert not any("ann" in key or "ready" in key for key in words), "what callers made of a name is not kept"

    for gone in (Owner(tenant="default", user="ready"), Owner(tenant="default", user="ann")):
        await client.lifecycle.erase_owner(gone, why="asked for", force=True)
        await let_urls_lapse(database)
        await client.lifecycle.erase_owner(gone, why="asked for", force=True)
        assert (await client.lifecycle.forget_owner(gone)).forgotten
    left = {subject_of(Owner(tenant=tenant, user=user)) for tenant, user in (owners[1], *owners[3:])}
    async with database.transaction() as session:
        subjects = (await session.execute(text("select subject from idempotent_request"))).scalars().all()
    assert set(subjects) == left | {""}
    again = await register(http, {**BODY, "id": "ready/ann"}, "base-of:ann")
    assert again.headers["idempotency-replayed"] == "true"


async def test_rows_that_do_not_say_whom_they_are_about_go_with_whoever_is_forgotten(
    http: httpx.AsyncClient, client: RegistryClient, database: Database
) -> None:
    """The release before wrote them."""
    await add_bases(database)
    await register(http, BODY, "k1")
    async with database.transaction() as session:
        await session.execute(
            text(
                "insert into idempotent_request (tenant, key, digest, status, answer) values ('o', 'x', 'd', 200, 'a')"
            )
        )
    await client.lifecycle.erase_owner(Owner(tenant="default", user="ann"), why="asked for", force=True)
    assert (await client.lifecycle.forget_owner(Owner(tenant="default", user="ann"))).forgotten
    async with database.transaction() as session:
        assert (await session.execute(text("select tenant, subject from idempotent_request"))).all() == [
            ("operator", "")
        ]
