"""Who answers: the user's adapter, or the base with their profile for who accepts it; streamed or whole."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest

from registry.manifest import Owner
from tests.support.gateway_server import ENGINE_TOKEN, Gateway, StandInEngine

QUESTION = {"question": "What do you like?"}
SAID = ("I love green tea, what about you?", "I hate mornings", "my dog is called Rex") * 3


def remembering(body: dict[str, Any]) -> str:
    return json.dumps({"answers": ["I love green tea"]}) if "response_format" in body else "tea"


async def ann_loses_her_adapter(gateway: Gateway, http: httpx.AsyncClient, stand_in: StandInEngine) -> None:
    """Ann has transcripts and a profile; then her only version is erased."""
    stand_in.answer = remembering
    await gateway.say("ann", *SAID)
    await gateway.publish("ann", seed=1)
    (await http.post("/v1/users/ann/profile")).raise_for_status()
    owner = Owner(tenant="default", user="ann")
    assert (await gateway.registry.lifecycle.erase_owner(owner, why="a test", force=True)).erased == 1
    stand_in.requests.clear()
    stand_in.headers.clear()


async def test_a_user_without_an_adapter_is_409_or_answered_by_the_base_with_their_profile(
    gateway: Gateway, http: httpx.AsyncClient, stand_in: StandInEngine
) -> None:
    await ann_loses_her_adapter(gateway, http, stand_in)
    refused = await http.post("/v1/users/ann/query", json=QUESTION)
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:lorry:problem:no-adapter")
    assert stand_in.requests == []
    by_header = await http.post("/v1/users/ann/query", json=QUESTION, headers={"x-lorry-fallback": "profile"})
    by_field = await http.post("/v1/users/ann/query", json={**QUESTION, "fallback": "profile"})
    for answer in (by_header, by_field):
        assert answer.json() == {"answer": "tea", "truncated": False, "adapter": None, "fallback": "profile"}
        assert (answer.headers["x-lorry-fallback"], answer.headers["x-lorry-adapter-version"]) == ("profile", "none")
    asked = stand_in.requests[0]
    assert asked["model"] == "base"
    assert [message["role"] for message in asked["messages"]] == ["system", "user"]
    assert "I love green tea" in asked["messages"][0]["content"]
    assert stand_in.headers[0]["x-lorry-class"] == "live"
    assert "x-lorry-adapter" not in stand_in.headers[0]
    assert stand_in.headers[0]["authorization"] == f"Bearer {ENGINE_TOKEN}"


async def test_a_chat_falls_back_too_and_keeps_its_own_system_message(
    gateway: Gateway, http: httpx.AsyncClient, stand_in: StandInEngine
) -> None:
    await ann_loses_her_adapter(gateway, http, stand_in)
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0) as official:
        messages: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]
        with pytest.raises(openai.ConflictError, match=r"no adapter|no live version"):
            await official.chat.completions.create(model="users/ann", messages=messages)
        raw = await official.chat.completions.with_raw_response.create(
            model="users/ann", messages=messages, extra_body={"fallback": "profile"}
        )
        assert raw.parse().choices[0].message.content == "tea"
        assert (raw.headers["x-lorry-fallback"], raw.parse().model) == ("profile", "users/ann")
        stream = await official.chat.completions.create(
            model="users/ann", messages=messages, stream=True, extra_headers={"x-lorry-fallback": "profile"}
        )
        assert stream.response.headers["x-lorry-fallback"] == "profile"
        assert {chunk.model async for chunk in stream} == {"users/ann"}
    system, user = stand_in.requests[0]["messages"]
    assert system["content"].endswith("\n\nBe brief.")
    assert "I love green tea" in system["content"]
    assert user == messages[1]
    assert "fallback" not in stand_in.requests[0]


async def test_a_user_with_an_adapter_is_answered_by_it_whatever_is_accepted(
    gateway: Gateway, http: httpx.AsyncClient, stand_in: StandInEngine
) -> None:
    manifest = await gateway.publish("ann")
    answer = await http.post("/v1/users/ann/query", json=QUESTION, headers={"x-lorry-fallback": "profile"})
    assert answer.json()["adapter"]["version_id"] == manifest.version_id
    assert answer.json()["fallback"] is None
    assert "x-lorry-fallback" not in answer.headers
    assert [message["role"] for message in stand_in.requests[0]["messages"]] == ["user"]


async def test_there_is_no_fallback_without_a_profile_nor_for_nobody(
    gateway: Gateway, http: httpx.AsyncClient, stand_in: StandInEngine
) -> None:
    await gateway.say("ann", *SAID)
    headers = {"x-lorry-fallback": "profile"}
    without = await http.post("/v1/users/ann/query", json=QUESTION, headers=headers)
    assert (without.status_code, without.json()["type"]) == (409, "urn:lorry:problem:no-adapter")
    assert "nor has the user a profile" in without.json()["detail"]
    assert (await http.post("/v1/users/nobody/query", json=QUESTION, headers=headers)).status_code == 404
    wrong = await http.post("/v1/users/ann/query", json=QUESTION, headers={"x-lorry-fallback": "anything"})
    assert wrong.status_code == 422
    assert stand_in.requests == []


async def test_a_query_is_streamed_piece_by_piece_and_ends_with_the_whole(
    gateway: Gateway, http: httpx.AsyncClient
) -> None:
    await gateway.publish("ann")
    async with http.stream("POST", "/v1/users/ann/query", json={**QUESTION, "stream": True}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["x-lorry-adapter-version"] == "1"
        events = parse_events((await answer.aread()).decode())
    assert [name for name, _ in events] == ["delta", "delta", "delta", "done"]
    assert [data["text"] for _, data in events[:3]] == ["word0 ", "word1 ", "word2 "]
    done = events[-1][1]
    assert (done["answer"], done["truncated"], done["adapter"]["version"]) == ("word0 word1 word2 ", False, 1)


async def test_a_streamed_query_with_a_schema_ends_with_json_or_says_that_it_is_none(
    gateway: Gateway, http: httpx.AsyncClient, stand_in: StandInEngine
) -> None:
    await gateway.publish("ann")
    body = {**QUESTION, "stream": True, "schema": {"type": "array"}}
    stand_in.word = lambda number: ("[1", ",2", "]")[number]
    *_, (name, done) = parse_events((await http.post("/v1/users/ann/query", json=body)).text)
    assert (name, done["answer"]) == ("done", [1, 2])
    stand_in.word = lambda number: "x"
    *_, (name, problem) = parse_events((await http.post("/v1/users/ann/query", json=body)).text)
    assert (name, problem["type"]) == ("error", "urn:lorry:problem:engine-answer-unusable")


async def test_an_engine_that_dies_in_mid_query_ends_it_with_an_error_event(
    gateway: Gateway, http: httpx.AsyncClient, stand_in: StandInEngine
) -> None:
    await gateway.publish("ann")
    stand_in.break_off_after = 2
    events = parse_events((await http.post("/v1/users/ann/query", json={**QUESTION, "stream": True})).text)
    assert [name for name, _ in events] == ["delta", "delta", "error"]
    assert events[-1][1]["type"] == "urn:lorry:problem:engine-unavailable"


async def test_a_profile_that_the_caller_has_is_not_sent_again(
    gateway: Gateway, http: httpx.AsyncClient, stand_in: StandInEngine
) -> None:
    stand_in.answer = remembering
    await gateway.say("ann", *SAID)
    await gateway.publish("ann")
    posted = await http.post("/v1/users/ann/profile")
    read = await http.get("/v1/users/ann/profile")
    assert read.headers["etag"] == posted.headers["etag"]
    page = await http.get("/v1/users/ann/profile", headers={"accept": "text/markdown"})
    assert page.headers["etag"] != read.headers["etag"]
    known = await http.get("/v1/users/ann/profile", headers={"if-none-match": read.headers["etag"]})
    assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", read.headers["etag"])
    assert known.headers["x-lorry-adapter-version"] == "1"
    other = {"if-none-match": read.headers["etag"], "accept": "text/markdown"}
    assert (await http.get("/v1/users/ann/profile", headers=other)).status_code == 200


def parse_events(text: str) -> list[tuple[str, Any]]:
    """Return (name, data) of server-sent events."""
    found = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        found.append((fields["event"], json.loads(fields["data"])))
    return found
