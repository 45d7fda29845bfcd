"""OpenAI's routes, called with the official client."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest

from tests.support.gateway_server import Gateway, StandInEngine
from tests.support.waiting import until

HELLO: Any = [{"role": "user", "content": "hello"}]


@pytest.fixture
async def official(gateway: Gateway) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0) as client:
        yield client


async def test_a_chat_is_answered_as_the_users_model(
    gateway: Gateway, official: openai.AsyncOpenAI, stand_in: StandInEngine
) -> None:
    manifest = await gateway.publish("ann")
    raw = await official.chat.completions.with_raw_response.create(
        model="users/ann", messages=HELLO, max_tokens=50, user="somebody", n=2, seed=3
    )
    answer = raw.parse()
    assert raw.headers["x-lorry-adapter-version"] == "1"
    assert (answer.model, answer.choices[0].message.content) == ("users/ann", "you said hello")
    assert len(answer.choices) == 2
    assert answer.usage is not None
    assert answer.usage.total_tokens == 3
    (request,) = stand_in.requests
    assert request == {"model": manifest.version_id, "messages": HELLO, "max_tokens": 50, "n": 2, "seed": 3}
    assert gateway.key not in json.dumps(stand_in.headers)


async def test_all_versions_of_an_adapter_are_sent_where_a_load_balancer_sends_the_first(
    gateway: Gateway, official: openai.AsyncOpenAI, stand_in: StandInEngine
) -> None:
    for user, seed in (("ann", 1), ("ann", 2), ("ben", 3)):
        await gateway.publish(user, seed=seed)
        await official.chat.completions.create(model=f"users/{user}", messages=HELLO, max_tokens=5)
    asked = [
        (request["model"], headers["x-lorry-adapter"])
        for request, headers in zip(stand_in.requests, stand_in.headers, strict=True)
    ]
    (first, ann), (second, still_ann), (_, ben) = asked
    assert first != second
    assert ann == still_ann != ben
    assert "ann" not in ann


async def test_a_chat_is_streamed_word_by_word(
    gateway: Gateway, official: openai.AsyncOpenAI, stand_in: StandInEngine
) -> None:
    manifest = await gateway.publish("ann")
    may_go_on = stand_in.goes_on = asyncio.Semaphore(0)
    words = []
    stream = await official.chat.completions.create(model="users/ann@1", messages=HELLO, stream=True)
    async for chunk in stream:
        words.append(chunk.choices[0].delta.content)
        assert chunk.model == "users/ann@1"
        may_go_on.release()  # chunks arrive as they are made: no further one is before this one was read
    assert words == ["word0 ", "word1 ", "word2 "]
    assert stream.response.headers["x-lorry-adapter-version"] == "1"
    assert stream.response.headers["content-type"].startswith("text/event-stream")
    assert stand_in.requests[0]["model"] == manifest.version_id


async def test_a_client_that_leaves_a_stream_closes_the_engines(
    gateway: Gateway, official: openai.AsyncOpenAI, stand_in: StandInEngine
) -> None:
    await gateway.publish("ann")
    stand_in.seconds_between_events, stand_in.events = 0.05, 1000
    stream = await official.chat.completions.create(model="users/ann", messages=HELLO, stream=True)
    await anext(aiter(stream))
    assert stand_in.running == 1
    await stream.close()
    await until(lambda: not stand_in.running)
    assert stand_in.closed_early == 1


async def test_an_engine_that_dies_in_mid_stream_is_an_error_to_the_client(
    gateway: Gateway, official: openai.AsyncOpenAI, stand_in: StandInEngine
) -> None:
    await gateway.publish("ann")
    stand_in.break_off_after = 2
    stream = await official.chat.completions.create(model="users/ann", messages=HELLO, stream=True)
    for _ in range(2):
        await anext(aiter(stream))
    with pytest.raises(openai.APIError, match="engine did not answer"):
        await anext(aiter(stream))


@pytest.mark.parametrize("stream", [False, True])
async def test_refusals_show_their_message_in_the_official_client(
    gateway: Gateway, official: openai.AsyncOpenAI, stand_in: StandInEngine, stream: bool
) -> None:
    async def ask(model: str) -> Any:
        return await official.chat.completions.create(model=model, messages=HELLO, stream=stream)

    with pytest.raises(openai.NotFoundError, match="neither transcripts nor an adapter"):
        await ask("users/nobody")
    with pytest.raises(openai.NotFoundError, match="models are named users/<user_id>"):
        await ask("base")
    await gateway.publish("ann", live=False)
    with pytest.raises(openai.ConflictError, match="no live version"):
        await ask("users/ann")
    with pytest.raises(openai.NotFoundError):
        await ask("users/ann@candidate")
    with pytest.raises(openai.NotFoundError):
        await ask("users/ann@7")
    with pytest.raises(openai.UnprocessableEntityError, match="user_id"):
        await ask("users/a b")
    stand_in.refuse_with = (400, "no such thing")
    with pytest.raises(openai.BadRequestError, match="no such thing"):
        await ask("users/ann@1")
    stand_in.refuse_with = (500, "core dead")
    with pytest.raises(openai.InternalServerError, match="the engine answered 500"):
        await ask("users/ann@1")


@pytest.mark.parametrize("status", [429, 503])
async def test_an_engine_that_is_busy_says_when_to_come_back_and_so_do_we(
    gateway: Gateway, stand_in: StandInEngine, status: int
) -> None:
    await gateway.publish("ann")
    stand_in.refuse_with, stand_in.retry_after = (status, "More requests wait than it queues."), "7"
    headers = {"authorization": f"Bearer {gateway.key}"}
    async with httpx.AsyncClient(timeout=60, base_url=gateway.url, headers=headers, trust_env=False) as http:
        chat = await http.post("/v1/chat/completions", json={"model": "users/ann", "messages": HELLO})
        query = await http.post("/v1/users/ann/query", json={"question": "Who are you?"})
    for response in (chat, query):
        assert (response.status_code, response.headers["retry-after"]) == (status, "7")
        assert response.headers["content-type"] == "application/problem+json"
        assert "More requests wait" in response.json()["detail"]
        assert response.json()["retry_after_seconds"] == 7
    assert "More requests wait" in chat.json()["error"]["message"]


async def test_the_engine_hears_class_and_an_opaque_tenant(gateway: Gateway, stand_in: StandInEngine) -> None:
    await gateway.publish("ann")
    await gateway.publish("bob", seed=2, tenant="other")
    chats = ((gateway.key, "ann"), (gateway.key, "ann"), (gateway.other_key, "bob"))
    async with httpx.AsyncClient(timeout=60, base_url=gateway.url, trust_env=False) as http:
        for key, user in chats:
            body = {"model": f"users/{user}", "messages": HELLO}
            headers = {"authorization": f"Bearer {key}"}
            assert (await http.post("/v1/chat/completions", json=body, headers=headers)).status_code == 200
    first, second, other = (each["x-lorry-tenant"] for each in stand_in.headers)
    assert first == second != other
    assert {each["x-lorry-class"] for each in stand_in.headers} == {"live"}
    assert "default" not in json.dumps(stand_in.headers)
    unkeyed = hashlib.sha256(b"tenant:default").hexdigest()
    assert first != unkeyed[: len(first)], "nobody without the engine's token can try names"


async def test_looking_at_a_model_tells_the_engine_that_it_is_wanted(
    gateway: Gateway, official: openai.AsyncOpenAI, stand_in: StandInEngine
) -> None:
    manifest = await gateway.publish("ann")
    for _ in range(3):
        await official.models.retrieve("users/ann")
    await until(lambda: bool(stand_in.hints))
    await asyncio.sleep(0.05)
    assert stand_in.hints == [(manifest.version_id, "live")]


async def test_a_bad_request_is_refused_with_the_field_in_both_shapes(gateway: Gateway) -> None:
    headers = {"authorization": f"Bearer {gateway.key}"}
    body = {"model": "users/ann", "messages": HELLO, "chat_template": "{{ x }}"}
    async with httpx.AsyncClient(timeout=60, base_url=gateway.url, headers=headers, trust_env=False) as http:
        response = await http.post("/v1/chat/completions", json=body)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert "chat_template" in response.json()["detail"]
    assert "chat_template" in response.json()["error"]["message"]


async def test_a_wrong_key_is_an_authentication_error(gateway: Gateway) -> None:
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="lorry_" + "x" * 43, max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError, match="valid API key"):
            await client.chat.completions.create(model="users/ann", messages=HELLO)


async def test_models_are_the_callers_own_live_adapters(gateway: Gateway, official: openai.AsyncOpenAI) -> None:
    await gateway.publish("ann")
    await gateway.publish("bob", seed=2)
    await gateway.publish("cid", seed=3, live=False)
    await gateway.publish("dan", seed=4, tenant="other")
    assert sorted([model.id async for model in official.models.list()]) == ["users/ann", "users/bob"]
    assert (await official.models.retrieve("users/ann")).owned_by == "default"
    with pytest.raises(openai.NotFoundError):
        await official.models.retrieve("users/dan")
    other = official.with_options(api_key=gateway.other_key)
    assert [model.id async for model in other.models.list()] == ["users/dan"]


async def test_models_come_in_pages(gateway: Gateway) -> None:
    for seed, user in enumerate(("ann", "bob", "cid")):
        await gateway.publish(user, seed=seed)
    headers = {"authorization": f"Bearer {gateway.key}"}
    found, cursor = [], None
    async with httpx.AsyncClient(timeout=60, base_url=gateway.url, headers=headers, trust_env=False) as http:
        while True:
            params: dict[str, Any] = {"limit": 2} | ({"cursor": cursor} if cursor else {})
            page = (await http.get("/v1/models", params=params)).json()
            found += [model["id"] for model in page["data"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
    assert found == ["users/ann", "users/bob", "users/cid"]
