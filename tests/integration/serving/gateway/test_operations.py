"""Who may call, how much, and what an on-call engineer sees."""

from __future__ import annotations

import asyncio
import re

import httpx

from kit.database import Database
from registry.client import RegistryClient
from serving.gateway.app import create_app
from serving.gateway.keys import create_api_key, find_key, make_api_key, revoke_api_key
from serving.gateway.repository import ApiKeyRepository
from serving.gateway.settings import GatewaySettings
from tests.support.gateway_routes import ROUTES
from tests.support.gateway_server import Gateway
from tests.support.registry_server import serving


async def test_every_route_refuses_a_missing_or_wrong_key(gateway: Gateway) -> None:
    key = gateway.key
    wrong = [None, "Bearer", "Bearer x", f"Basic {key}", key, f"Bearer {key}x", f"Bearer {key[:-1]}", "Bearer lorry_é"]
    async with httpx.AsyncClient(timeout=60, base_url=gateway.url, trust_env=False) as http:
        for route in ROUTES:
            for authorization in wrong:
                headers = {} if authorization is None else {"authorization": authorization.encode()}
                response = await route.call(http, headers=headers)
                assert (response.status_code, authorization, route) == (401, authorization, route)
                assert response.json()["type"] == "urn:lorry:problem:unauthorized"


async def test_a_key_belongs_to_one_tenant_until_it_is_revoked(database: Database) -> None:
    async with database.transaction() as session:
        keys = {tenant: await make_api_key(session, tenant, scopes=["*"]) for tenant in ("a", "b")}

    async def tenant_of(key: str) -> str | None:
        async with database.transaction() as session:
            found = await find_key(session, key)
        return None if found is None else found.tenant

    assert {tenant: await tenant_of(made.key) for tenant, made in keys.items()} == {"a": "a", "b": "b"}
    async with database.transaction() as session:
        await revoke_api_key(session, "a", keys["a"].key_id)
    assert await tenant_of(keys["a"].key) is None
    key = keys["b"].key
    assert await tenant_of(key) == "b"
    assert await tenant_of(key[:-1] + ("A" if key[-1] != "A" else "B")) is None


async def test_the_database_never_holds_a_key(database: Database) -> None:
    async with database.transaction() as session:
        key = await create_api_key(session, "a")
        assert re.fullmatch(r"lorry_[A-Za-z0-9_-]{43}", key)
        (stored,) = await ApiKeyRepository(session).with_prefix(key[:14])
    assert key[14:].encode() not in stored.digest
    assert len(stored.digest) == 32


async def test_a_body_over_the_limit_is_413(gateway: Gateway, http: httpx.AsyncClient) -> None:
    body = {"question": "x" * 200_000}
    response = await http.post("/v1/users/ann/query", json=body)
    assert (response.status_code, response.json()["type"]) == (413, "urn:lorry:problem:request-too-large")


async def test_health_and_readiness_and_version(gateway: Gateway) -> None:
    async with httpx.AsyncClient(timeout=60, base_url=gateway.url, trust_env=False) as http:
        assert (await http.get("/healthz")).json() == {"status": "ok"}
        assert (await http.get("/readyz")).json() == {"status": "ready"}
        assert "version" in (await http.get("/version")).json()
        missing = await http.get("/nothing")
    assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")


async def test_readiness_names_what_does_not_answer(gateway_settings: GatewaySettings, client: RegistryClient) -> None:
    nowhere = "http://127.0.0.1:9"
    for change, word in (("engine_url", "engine"), ("registry_url", "registry")):
        async with serving(create_app(gateway_settings.model_copy(update={change: nowhere}))) as url:
            async with httpx.AsyncClient(timeout=60, base_url=url, trust_env=False) as http:
                response = await http.get("/readyz")
            assert response.status_code == 503
            assert word in response.json()["detail"]


async def test_metrics_count_by_route_template_and_never_name_anybody(
    gateway: Gateway, http: httpx.AsyncClient
) -> None:
    manifest = await gateway.publish("somebody-secret")
    await http.post("/v1/users/somebody-secret/query", json={"question": "?"})
    await http.post("/v1/users/nobody/query", json={"question": "?"})
    await http.get("/v1/models/users/somebody-secret")
    await http.get("/nonsense/somebody-secret")
    text = (await http.get("/metrics")).text
    route = 'route="/v1/users/{user_id}/query"'
    assert f'lorry_gateway_requests_total{{method="POST",{route},status="200"}} 1.0' in text
    assert f'lorry_gateway_requests_total{{method="POST",{route},status="404"}} 1.0' in text
    assert f"lorry_gateway_request_seconds_count{{{route}}} 2.0" in text
    assert 'lorry_gateway_requests_total{method="GET",route="unmatched",status="404"} 1.0' in text
    for secret in ("somebody-secret", "nobody", manifest.version_id):
        assert secret not in text


async def test_a_burst_of_requests_asks_the_registry_briefly_and_sees_moves_within_the_cache_time(
    gateway: Gateway, gateway_settings: GatewaySettings
) -> None:
    await gateway.publish("ann", seed=1)
    settings = gateway_settings.model_copy(update={"gateway_cache_seconds": 0.5})
    headers = {"authorization": f"Bearer {gateway.key}"}
    async with (
        serving(create_app(settings)) as url,
        httpx.AsyncClient(timeout=60, base_url=url, headers=headers, trust_env=False) as http,
    ):

        async def version() -> int:
            answer = await http.post("/v1/users/ann/query", json={"question": "?"})
            return int(answer.json()["adapter"]["version"])

        assert await version() == 1
        await gateway.publish("ann", seed=2)
        await asyncio.sleep(0.6)
        assert await version() == 2
