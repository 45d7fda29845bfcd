"""What was used, counted beside the requests."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from typing import Any

import httpx
import pytest

from kit.database import Database
from kit.errors import DatabaseUnavailable
from kit.settings import DatabaseSettings
from serving.gateway.usage.meter import Meter
from serving.gateway.usage.repository import UsageRepository, Used
from tests.support.gateway_server import Gateway, StandInEngine
from tests.support.waiting import until

QUESTION = {"question": "?"}


async def used(http: httpx.AsyncClient, **params: Any) -> list[tuple[str | None, int, int, int]]:
    rows = (await http.get("/v1/usage", params=params)).json()["usage"]
    return [(row["user_id"], row["requests"], row["prompt_tokens"], row["completion_tokens"]) for row in rows]


async def test_questions_chats_and_streams_are_counted_by_user(
    gateway: Gateway, http: httpx.AsyncClient, stand_in: StandInEngine
) -> None:
    await gateway.publish("ann")
    await gateway.publish("bob", seed=2)
    await gateway.publish("ann", seed=3, tenant="other")
    hello = {"model": "users/bob", "messages": [{"role": "user", "content": "hi"}]}
    stand_in.refuse_with = (500, "dead")
    await http.post("/v1/users/ann/query", json=QUESTION)
    stand_in.refuse_with = None
    await http.post("/v1/users/ann/query", json=QUESTION)
    await http.post("/v1/users/ann/query", json={**QUESTION, "stream": True})
    await http.post("/v1/chat/completions", json=hello)
    streamed = await http.post("/v1/chat/completions", json={**hello, "stream": True})
    assert "usage" not in streamed.text, "who did not ask for it gets no event with counts"
    asked = {**hello, "stream": True, "stream_options": {"include_usage": True}}
    assert '"completion_tokens": 3' in (await http.post("/v1/chat/completions", json=asked)).text

    async def are_written() -> bool:
        return sum(requests for _, requests, _, _ in await used(http)) >= 5

    async with gateway.caller(gateway.other_key) as other:
        await until(are_written)
        assert await used(other) == []
    assert await used(http) == [("ann", 2, 2, 5), ("bob", 3, 3, 8)]
    assert await used(http, user_id="bob") == [("bob", 3, 3, 8)]
    assert await used(http, by="day") == [(None, 5, 5, 13)]


async def test_a_stream_that_its_client_left_is_counted_as_far_as_it_came(
    gateway: Gateway, http: httpx.AsyncClient, stand_in: StandInEngine
) -> None:
    await gateway.publish("ann")
    stand_in.goes_on, stand_in.events = asyncio.Semaphore(6), 10_000
    async with http.stream("POST", "/v1/users/ann/query", json={**QUESTION, "stream": True}) as stream:
        lines = stream.aiter_lines()
        for _ in range(7):
            await anext(lines)

    async def is_written() -> bool:
        return bool(await used(http))

    await until(is_written)
    await asyncio.sleep(0.1)  # what was counted twice would be written now
    ((user, requests, _, tokens),) = await used(http)
    assert (user, requests) == ("ann", 1)
    assert 2 <= tokens <= 7, "what had been sent by then, and not as if it had come whole"


async def test_usage_comes_in_pages_by_day_and_user(http: httpx.AsyncClient, database: Database) -> None:
    today = datetime.now(UTC).date()
    days = [today - timedelta(days=back) for back in (2, 1, 0)]
    await write(database, [row(day, user) for day in days for user in ("ann", "bob")])
    seen, cursor = [], None
    for _ in range(3):
        page = (await http.get("/v1/usage", params={"limit": 2} | ({"cursor": cursor} if cursor else {}))).json()
        seen += [(each["day"], each["user_id"]) for each in page["usage"]]
        cursor = page["next_cursor"]
    assert cursor is None
    assert seen == [(day.isoformat(), user) for day in days for user in ("ann", "bob")]
    one_day = {"since": days[1].isoformat(), "until": days[1].isoformat(), "by": "day"}
    assert await used(http, **one_day) == [(None, 2, 20, 40)]
    for params in ({"cursor": "WyJ4IiwgImEiXQ"}, {"since": "yesterday"}, {"by": "week"}):
        assert (await http.get("/v1/usage", params=params)).status_code == 422, params


async def test_two_gateways_add_to_one_count(database: Database) -> None:
    today = datetime.now(UTC).date()
    meters = [Meter(database, every_seconds=60) for _ in range(2)]
    for meter in meters:
        for number in range(50):
            meter.count("t", f"u{number}", prompt_tokens=1, completion_tokens=2)
    await asyncio.gather(*(meter.write() for meter in meters))
    async with database.reading() as session:
        tomorrow = today + timedelta(days=1)
        (total,) = await UsageRepository(session).sums("t", since=today, until=tomorrow, user=None)
    assert (total.requests, total.prompt_tokens, total.completion_tokens) == (100, 100, 200)


async def test_what_could_not_be_written_is_written_later(
    database: Database, database_settings: DatabaseSettings
) -> None:
    nowhere = database_settings.model_copy(update={"database_url": "postgresql+asyncpg://x:x@127.0.0.1:9/x"})
    unreachable = Database(nowhere)
    today = datetime.now(UTC).date()
    meter = Meter(unreachable, every_seconds=60)
    meter.count("t", "ann", prompt_tokens=3)
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable):
            await meter.write()
    meter._database = database
    await meter.write()
    await meter.write()
    await unreachable.close()
    async with database.reading() as session:
        tomorrow = today + timedelta(days=1)
        (total,) = await UsageRepository(session).sums("t", since=today, until=tomorrow, user="ann")
    assert (total.requests, total.prompt_tokens) == (1, 3)


async def write(database: Database, rows: list[Used]) -> None:
    async with database.transaction() as session:
        await UsageRepository(session).add(rows)


def row(day: date, user: str) -> Used:
    return Used(tenant="default", day=day, user_id=user, requests=1, prompt_tokens=10, completion_tokens=20)
