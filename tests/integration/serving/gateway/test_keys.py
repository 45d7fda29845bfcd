"""API keys: scopes, ends, rotation."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import httpx
import pytest
from sqlalchemy import text

from kit.database import Database
from serving.errors import ApiKeyNotFound, UnknownScope
from serving.gateway.app import create_app
from serving.gateway.keys import create_api_key, find_key, list_api_keys, make_api_key, revoke_api_key, rotate_api_key
from serving.gateway.openapi import required_scopes
from serving.gateway.settings import GatewaySettings
from tests.support.gateway_routes import ROUTES, WITHOUT_KEY, described
from tests.support.gateway_server import Gateway
from tests.support.registry_server import serving

ALL = ("*",)


def test_every_route_with_a_key_needs_the_scope_that_is_tested_here(gateway_settings: GatewaySettings) -> None:
    app = create_app(gateway_settings)
    assert {(route.method, route.path) for route in ROUTES} == described(app) - WITHOUT_KEY
    found = {(method.upper(), path): str(scope) for (method, path), scope in required_scopes(app).items()}
    assert {(route.method, route.path): route.scope for route in ROUTES} == found


async def test_a_key_without_a_routes_scope_is_refused_by_name_and_one_with_it_is_not(gateway: Gateway) -> None:
    scopes = sorted({route.scope for route in ROUTES})
    for route in ROUTES:
        others = [scope for scope in scopes if scope != route.scope]
        async with gateway.caller(await gateway.make_key(*others)) as http:
            refused = await route.call(http)
        assert (refused.status_code, refused.json()["type"]) == (403, "urn:lorry:problem:scope-missing"), route
        assert refused.json()["scope"] == route.scope
        async with gateway.caller(await gateway.make_key(route.scope)) as http:
            assert (await route.call(http)).status_code not in {401, 403}, route


async def test_a_key_that_the_release_before_made_may_do_everything(gateway: Gateway, database: Database) -> None:
    async with database.engine.begin() as connection:
        await connection.exec_driver_sql(
            "update api_key set scopes = default, name = default, key_id = default where tenant = 'default'"
        )
    async with gateway.caller() as http:
        assert (await http.get("/v1/usage")).status_code == 200
        assert (await http.get("/v1/users/ann/transcripts")).status_code == 200


async def test_a_rotated_key_and_its_successor_are_both_accepted_until_the_overlap_ends(
    gateway: Gateway, database: Database
) -> None:
    async with database.transaction() as session:
        old = await make_api_key(session, "default", scopes=["query", "chat"], name="app")
    async with database.transaction() as session:
        new = await rotate_api_key(session, "default", old.key_id, overlap=timedelta(hours=1))
    for key in (old.key, new.key):
        async with gateway.caller(key) as http:
            assert (await http.get("/v1/models")).status_code == 200
            assert (await http.get("/v1/usage")).status_code == 403, "the new key has the scopes of the old one"
    await let_pass(database, timedelta(hours=1))
    async with gateway.caller(old.key) as http:
        assert (await http.get("/v1/models")).status_code == 401
    async with gateway.caller(new.key) as http:
        assert (await http.get("/v1/models")).status_code == 200
    async with database.transaction() as session:
        listed = {key.key_id: key for key in await list_api_keys(session, "default")}
        with pytest.raises(ApiKeyNotFound):
            await rotate_api_key(session, "default", old.key_id)
    assert (listed[new.key_id].name, listed[new.key_id].scopes) == ("app", ("chat", "query"))
    assert listed[new.key_id].expires_at is None
    assert listed[old.key_id].expires_at is not None


async def test_a_remembered_key_ends_on_time_although_nobody_asks_the_database(
    gateway_settings: GatewaySettings, database: Database, gateway: Gateway
) -> None:
    key = await _made(database, lasts=timedelta(seconds=15))
    remembers = gateway_settings.model_copy(update={"gateway_cache_seconds": 600.0})
    async with serving(create_app(remembers)) as url, gateway.caller(key) as http:
        assert (await http.get(f"{url}/v1/models")).status_code == 200
        await asyncio.sleep(15.2)
        assert (await http.get(f"{url}/v1/models")).status_code == 401


async def test_a_rotated_key_never_lives_longer_than_it_would_have(database: Database) -> None:
    async with database.transaction() as session:
        old = await make_api_key(session, "default", scopes=ALL, lasts=timedelta(hours=1))
        new = await rotate_api_key(session, "default", old.key_id, overlap=timedelta(hours=10))
    await let_pass(database, timedelta(hours=1))
    async with database.transaction() as session:
        assert await find_key(session, old.key) is None
        assert await find_key(session, new.key) is None, "its life is as long as the old one's"


async def test_keys_are_revoked_by_id_within_their_tenant_only(database: Database) -> None:
    async with database.transaction() as session:
        made = await make_api_key(session, "a", scopes=ALL)
        with pytest.raises(ApiKeyNotFound):
            await revoke_api_key(session, "b", made.key_id)
        assert await find_key(session, made.key) is not None
        await revoke_api_key(session, "a", made.key_id)
        assert await find_key(session, made.key) is None
        with pytest.raises(ApiKeyNotFound):
            await revoke_api_key(session, "a", made.key_id)


async def test_a_key_needs_scopes_that_there_are(database: Database) -> None:
    async with database.transaction() as session:
        for scopes in ([], ["querry"], ["query", "*", "x"]):
            with pytest.raises(UnknownScope):
                await create_api_key(session, "default", scopes=scopes)


async def test_a_refused_scope_has_openais_shape_on_openais_routes(gateway: Gateway) -> None:
    async with httpx.AsyncClient(timeout=60, base_url=gateway.url, trust_env=False) as http:
        headers = {"authorization": f"Bearer {await gateway.make_key('query')}"}
        answer = await http.get("/v1/models", headers=headers)
    assert answer.status_code == 403
    assert "chat" in answer.json()["error"]["message"]


async def let_pass(database: Database, time: timedelta) -> None:
    """Have every key be so much nearer to its end."""
    async with database.transaction() as session:
        await session.execute(
            text("update api_key set expires_at = expires_at - cast(:time as interval)"), {"time": time}
        )


async def _made(database: Database, *, lasts: timedelta) -> str:
    async with database.transaction() as session:
        return await create_api_key(session, "default", lasts=lasts)
