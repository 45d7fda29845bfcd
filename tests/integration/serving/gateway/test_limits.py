"""What a tenant may ask of all gateways together."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial

from kit.database import Database
from serving.gateway.app import create_app
from serving.gateway.limits.copies import Copies
from serving.gateway.limits.repository import CopyRepository
from serving.gateway.repository import TenantLimit, TenantLimitRepository
from serving.gateway.settings import GatewaySettings
from tests.support.gateway_server import Gateway, StandInEngine
from tests.support.registry_server import serving
from tests.support.waiting import until


async def limit(database: Database, tenant: str, **given: float) -> None:
    async with database.transaction() as session:
        await TenantLimitRepository(session).put(tenant, TenantLimit(**given))  # type: ignore[arg-type]


async def test_a_tenant_over_its_rate_gets_429_and_others_are_served(gateway: Gateway, database: Database) -> None:
    await limit(database, "default", requests_per_second=0.1, burst=3)
    async with gateway.caller() as http, gateway.caller(gateway.other_key) as other:
        answers = [await http.get("/v1/models") for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert [answer.headers["ratelimit-remaining"] for answer in answers[:3]] == ["2", "1", "0"]
        assert answers[0].headers["ratelimit-limit"] == "3"
        refused = answers[3]
        assert refused.json()["type"] == "urn:lorry:problem:rate-exceeded"
        assert 1 <= int(refused.headers["retry-after"]) <= 10
        assert refused.json()["error"]["type"] == "rate_limit_error"
        assert (await other.get("/v1/models")).status_code == 200
        await asyncio.sleep(int(refused.headers["retry-after"]))
        assert (await http.get("/v1/models")).status_code == 200


async def test_so_many_requests_of_a_tenant_run_at_once_and_a_stream_is_one_until_it_ends(
    gateway: Gateway, database: Database, stand_in: StandInEngine
) -> None:
    await gateway.publish("ann")
    await limit(database, "default", concurrent=1)
    stand_in.seconds_between_events, stand_in.events = 0.05, 1000
    body = {"question": "?", "stream": True}
    async with gateway.caller() as http:
        async with http.stream("POST", "/v1/users/ann/query", json=body) as stream:
            lines = stream.aiter_lines()
            await anext(lines)
            refused = await http.get("/v1/usage")
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            assert refused.json()["type"] == "urn:lorry:problem:too-many-requests-at-once"

        async def is_let_in() -> bool:
            return (await http.get("/v1/usage")).status_code == 200

        await until(is_let_in)


async def test_gateways_share_what_a_tenant_may(
    gateway: Gateway, database: Database, gateway_settings: GatewaySettings
) -> None:
    await limit(database, "default", requests_per_second=0.01, burst=6)
    await limit(database, "other", requests_per_second=600, burst=600)
    async with (
        serving(create_app(gateway_settings)) as second,
        serving(create_app(gateway_settings)) as third,
        gateway.caller(gateway.other_key) as other,
    ):

        async def counts_three(url: str) -> bool:
            return (await other.get(f"{url}/v1/models")).headers["ratelimit-limit"] == "200"

        passed = []
        for url in (gateway.url, second, third):
            await until(partial(counts_three, url))
        for url in (gateway.url, second, third):
            async with gateway.caller() as http:
                answers = [await http.get(f"{url}/v1/models") for _ in range(6)]
            passed.append(sum(answer.status_code == 200 for answer in answers))
        assert passed == [2, 2, 2], "each lets a third of six through"


async def test_a_gateway_that_stopped_is_not_counted_and_a_killed_one_not_for_long(database: Database) -> None:
    first, second = (Copies(database, every_seconds=2.0) for _ in range(2))
    async with first.chore:
        async with second.chore:
            await until(lambda: (first.count, second.count) == (2, 2))
        async with database.transaction() as session:
            assert await CopyRepository(session).count(within=timedelta(hours=1)) == 1, "it said that it leaves"
        await until(lambda: first.count == 1)
        async with database.transaction() as session:
            await CopyRepository(session).hear("killed")
        await until(lambda: first.count == 2)
        await until(lambda: first.count == 1)
