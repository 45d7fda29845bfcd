"""`Idempotency-Key`: what was asked twice is done once."""

from __future__ import annotations

import asyncio

import httpx
from sqlalchemy import text

from kit.database import Database
from serving.gateway.app import create_app
from serving.gateway.idempotency.middleware import REPLAYED
from serving.gateway.settings import GatewaySettings
from tests.support.gateway_server import Gateway, StandInEngine
from tests.support.registry_server import serving
from tests.support.waiting import until

QUESTION = {"question": "Who are you?"}
KEY = {"idempotency-key": "one"}


async def test_a_repeated_request_is_answered_as_the_first_was_and_asked_once(
    gateway: Gateway, http: httpx.AsyncClient, stand_in: StandInEngine
) -> None:
    await gateway.publish("ann")
    first = await http.post("/v1/users/ann/query", json=QUESTION, headers=KEY)
    stand_in.answer = lambda body: "something else"
    again = await http.post("/v1/users/ann/query", json=QUESTION, headers=KEY)
    assert (again.status_code, again.content) == (200, first.content)
    assert again.headers["idempotency-replayed"] == "true"
    for name in ("content-type", "x-lorry-adapter-version"):
        assert again.headers[name] == first.headers[name]
    assert len(stand_in.requests) == 1
    fresh = await http.post("/v1/users/ann/query", json=QUESTION, headers={"idempotency-key": "two"})
    assert fresh.json()["answer"] == "something else"


async def test_a_key_is_bound_to_its_request(gateway: Gateway, http: httpx.AsyncClient) -> None:
    await gateway.publish("ann")
    await http.post("/v1/users/ann/query", json=QUESTION, headers=KEY)
    others = [
        ("POST", "/v1/users/ann/query", {"question": "And you?"}),
        ("POST", "/v1/users/bob/query", QUESTION),
        ("PUT", "/v1/users/ann/transcripts/t", {"turns": [{"role": "user", "text": "hi"}]}),
    ]
    for method, path, body in others:
        answer = await http.request(method, path, json=body, headers=KEY)
        assert (answer.status_code, answer.json()["type"]) == (409, "urn:lorry:problem:idempotency-conflict"), path
    async with gateway.caller(gateway.other_key) as other:
        answer = await other.post("/v1/users/ann/query", json=QUESTION, headers=KEY)
        assert answer.status_code == 404, "another tenant's key is another key"


async def test_while_the_first_request_runs_a_second_is_told_to_wait(
    gateway: Gateway, http: httpx.AsyncClient, stand_in: StandInEngine
) -> None:
    await gateway.publish("ann")
    stand_in.seconds_between_events = 30
    running = asyncio.create_task(http.post("/v1/users/ann/query", json=QUESTION, headers=KEY))
    await until(lambda: bool(stand_in.running))
    second = await http.post("/v1/users/ann/query", json=QUESTION, headers=KEY)
    assert (second.status_code, second.headers["retry-after"]) == (409, "1")
    assert second.json()["type"] == "urn:lorry:problem:request-still-running"
    stand_in.seconds_between_events = 0
    first = await running
    third = await http.post("/v1/users/ann/query", json=QUESTION, headers=KEY)
    assert (third.status_code, third.content) == (200, first.content)
    assert len(stand_in.requests) == 1


async def test_a_refusal_is_not_kept_so_the_next_attempt_runs(
    gateway: Gateway, http: httpx.AsyncClient, stand_in: StandInEngine
) -> None:
    assert (await http.post("/v1/users/ann/query", json=QUESTION, headers=KEY)).status_code == 404
    await gateway.publish("ann")
    stand_in.refuse_with = (500, "dead")
    assert (await http.post("/v1/users/ann/query", json=QUESTION, headers=KEY)).status_code == 503
    stand_in.refuse_with = None
    assert (await http.post("/v1/users/ann/query", json=QUESTION, headers=KEY)).status_code == 200


async def test_a_request_that_its_client_left_frees_its_key(
    gateway: Gateway, http: httpx.AsyncClient, stand_in: StandInEngine
) -> None:
    await gateway.publish("ann")
    stand_in.seconds_between_events = 600
    left = asyncio.create_task(http.post("/v1/users/ann/query", json=QUESTION, headers=KEY))
    await until(lambda: bool(stand_in.running))
    left.cancel()
    await until(lambda: stand_in.closed_early == 1)
    stand_in.seconds_between_events = 0

    async def is_free() -> bool:
        answer = await http.post("/v1/users/ann/query", json=QUESTION, headers=KEY)
        assert REPLAYED not in answer.headers
        return answer.status_code == 200

    await until(is_free)


async def test_streams_are_run_anew(gateway: Gateway, http: httpx.AsyncClient, stand_in: StandInEngine) -> None:
    await gateway.publish("ann")
    for _ in range(2):
        answer = await http.post("/v1/users/ann/query", json={**QUESTION, "stream": True}, headers=KEY)
        assert "event: done" in answer.text
    assert len(stand_in.requests) == 2


async def test_what_is_kept_names_its_user_and_is_deleted_when_it_expires(
    gateway: Gateway, gateway_settings: GatewaySettings, database: Database
) -> None:
    await gateway.publish("ann")
    settings = gateway_settings.model_copy(update={"gateway_idempotency_seconds": 0.4})
    chat = {"model": "users/ann", "messages": [{"role": "user", "content": "hello"}]}
    async with serving(create_app(settings)) as url, gateway.caller() as http:
        await http.post(f"{url}/v1/chat/completions", json=chat, headers=KEY)
        assert await _kept(database) == [("ann", True)]
        await asyncio.sleep(0.5)
        again = await http.post(f"{url}/v1/chat/completions", json=chat, headers=KEY)
        assert "idempotency-replayed" not in again.headers
        await asyncio.sleep(0.5)
    assert await _kept(database) == [], "a gateway that stops sweeps"


async def test_a_key_that_is_no_key_is_refused(http: httpx.AsyncClient) -> None:
    for key in ("", "x" * 256, "a b"):
        answer = await http.post("/v1/users/ann/query", json=QUESTION, headers={"idempotency-key": key})
        assert (answer.status_code, answer.json()["field"]) == (422, "idempotency-key"), key


async def _kept(database: Database) -> list[tuple[str, bool]]:
    async with database.reading() as session:
        rows = await session.execute(text("select user_id, answer is not null from gateway_request"))
        return [(user, has) for user, has in rows]
