"""Profiles and queries over HTTP: real gateway, registry, PostgreSQL and S3."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from serving.extraction.profile import Profile
from tests.support.gateway_server import Gateway, StandInEngine
from tests.support.waiting import until
from transcripts.store import TranscriptStore
from transcripts.transcript import Transcript, Turn

SAID = (
    "Hi there",
    "I love green tea, what about you?",
    "I hate mornings",
    "my dog is called Rex",
    "I study biology",
) * 3


async def import_turns(gateway: Gateway, user: str, *, tenant: str = "default") -> None:
    turns = [
        Turn(role="user", text=text, time=datetime(2020, 1, 1, 12, index, tzinfo=UTC))
        for index, text in enumerate(SAID)
    ]
    async with gateway.database.transaction() as session:
        transcript = Transcript(turns=tuple(turns), source_format="test")
        await TranscriptStore(session).add(tenant, user, [transcript])


def remembering(body: dict[str, Any]) -> str:
    """What an adapter says that remembers its user's sentences and makes some up."""
    return json.dumps({"answers": ["I love green tea", "I hate mornings", "I love skydiving"]})


def code(response: httpx.Response) -> str:
    return str(response.json()["type"]).removeprefix("urn:lorry:problem:")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("GET", "profile", None), ("POST", "profile", None), ("POST", "query", {"question": "Who are you?"})],
)
async def test_an_unknown_user_gets_404_and_one_without_an_adapter_409_with_what_to_do(
    gateway: Gateway, http: httpx.AsyncClient, method: str, path: str, body: Any
) -> None:
    unknown = await http.request(method, f"/v1/users/nobody/{path}", json=body)
    assert (unknown.status_code, code(unknown)) == (404, "unknown-user")
    await import_turns(gateway, "ann")
    known = await http.request(method, f"/v1/users/ann/{path}", json=body)
    assert (known.status_code, code(known)) == (409, "no-adapter")
    assert "has 1 transcript but no adapter" in known.json()["detail"]
    assert "`POST /v1/users/ann/trainings` or `lorry run ann`" in known.json()["detail"]
    assert known.json()["transcripts"] == 1


async def test_an_adapter_that_was_never_asked_says_to_post(gateway: Gateway, http: httpx.AsyncClient) -> None:
    await gateway.publish("ann")
    response = await http.get("/v1/users/ann/profile")
    assert (response.status_code, code(response)) == (404, "profile-not-extracted")
    assert "POST /v1/users/ann/profile" in response.json()["detail"]


async def test_an_adapter_without_a_live_version_is_409(gateway: Gateway, http: httpx.AsyncClient) -> None:
    await gateway.publish("ann", live=False)
    response = await http.get("/v1/users/ann/profile")
    assert (response.status_code, code(response)) == (409, "no-adapter")
    assert "live" in response.json()["detail"]


async def test_a_profile_is_extracted_kept_and_read_as_json_or_markdown(
    gateway: Gateway, http: httpx.AsyncClient, stand_in: StandInEngine
) -> None:
    stand_in.answer = remembering
    await import_turns(gateway, "ann")
    manifest = await gateway.publish("ann")
    posted = await http.post("/v1/users/ann/profile")
    assert posted.status_code == 200
    assert posted.headers["x-lorry-adapter-version"] == "1"
    profile = Profile.model_validate_json(posted.content)
    stated = {s.text: s for topic in profile.topics for s in topic.statements}
    assert set(stated) == {"I love green tea", "I hate mornings"}
    assert stated["I love green tea"].support[0].quote == "I love green tea, what about you?"
    assert profile.adapter.version_id == manifest.version_id
    assert any(pattern.name == "median_words" for pattern in profile.patterns)
    assert {request["model"] for request in stand_in.requests} == {manifest.version_id}
    assert {headers["x-lorry-class"] for headers in stand_in.headers} == {"batch"}
    assert stand_in.hints == [(manifest.version_id, "batch")]

    read = await http.get("/v1/users/ann/profile")
    assert read.content == posted.content
    page = await http.get("/v1/users/ann/profile", headers={"accept": "text/markdown"})
    assert page.headers["content-type"] == "text/markdown; charset=utf-8"
    assert "**I love green tea**" in page.text
    assert (await http.get("/v1/users/ann/profile", headers={"accept": "image/png"})).status_code == 406


async def test_a_new_extraction_replaces_the_older_profile_and_names_the_new_version(
    gateway: Gateway, http: httpx.AsyncClient
) -> None:
    await import_turns(gateway, "ann")
    await gateway.publish("ann", seed=1)
    await http.post("/v1/users/ann/profile")
    await gateway.publish("ann", seed=2)
    assert (await http.get("/v1/users/ann/profile")).headers["x-lorry-adapter-version"] == "1"
    await http.post("/v1/users/ann/profile")
    assert (await http.get("/v1/users/ann/profile")).headers["x-lorry-adapter-version"] == "2"


async def test_a_failed_extraction_keeps_the_older_profile(
    gateway: Gateway, http: httpx.AsyncClient, stand_in: StandInEngine
) -> None:
    await import_turns(gateway, "ann")
    await gateway.publish("ann")
    first = await http.post("/v1/users/ann/profile")
    stand_in.refuse_with = (500, "engine core died")
    failed = await http.post("/v1/users/ann/profile")
    assert (failed.status_code, code(failed)) == (503, "engine-unavailable")
    assert (await http.get("/v1/users/ann/profile")).content == first.content


async def test_two_users_adapters_never_answer_for_each_other(
    gateway: Gateway, http: httpx.AsyncClient, stand_in: StandInEngine
) -> None:
    versions = {user: (await gateway.publish(user, seed=seed)).version_id for seed, user in enumerate(("ann", "bob"))}
    stand_in.answer = lambda body: body["model"]
    users = ["ann", "bob"] * 10
    answers = await asyncio.gather(
        *(http.post(f"/v1/users/{user}/query", json={"question": "Who are you?"}) for user in users)
    )
    for user, answer in zip(users, answers, strict=True):
        assert answer.json()["answer"] == versions[user]
        assert answer.json()["adapter"] == {"version": 1, "version_id": versions[user]}
        assert answer.headers["x-lorry-adapter-version"] == "1"


async def test_equal_user_ids_of_two_tenants_are_two_users(gateway: Gateway, http: httpx.AsyncClient) -> None:
    await gateway.publish("ann")
    await import_turns(gateway, "ann")
    await http.post("/v1/users/ann/profile")
    other = {"authorization": f"Bearer {gateway.other_key}"}
    for method, path in (("GET", "profile"), ("POST", "profile"), ("POST", "query")):
        response = await http.request(method, f"/v1/users/ann/{path}", json={"question": "?"}, headers=other)
        assert (response.status_code, code(response)) == (404, "unknown-user")


async def test_a_query_with_a_schema_answers_json_of_that_shape(
    gateway: Gateway, http: httpx.AsyncClient, stand_in: StandInEngine
) -> None:
    await gateway.publish("ann")
    stand_in.answer = lambda body: '{"likes": ["tea"]}'
    schema = {"type": "object", "properties": {"likes": {"type": "array"}}}
    response = await http.post("/v1/users/ann/query", json={"question": "?", "schema": schema, "max_tokens": 9})
    assert response.json()["answer"] == {"likes": ["tea"]}
    assert stand_in.requests[0]["response_format"]["json_schema"]["schema"] == schema
    stand_in.answer = lambda body: '{"likes": ["tea", "coffee", "rain'
    cut = await http.post("/v1/users/ann/query", json={"question": "?", "schema": schema, "max_tokens": 1})
    assert (cut.status_code, code(cut), cut.json()["field"]) == (422, "answer-truncated", "max_tokens")


async def test_a_moved_alias_is_followed_at_once_when_nothing_is_remembered(
    gateway: Gateway, http: httpx.AsyncClient
) -> None:
    for version, seed in enumerate((1, 2, 3), start=1):
        await gateway.publish("ann", seed=seed)
        response = await http.post("/v1/users/ann/query", json={"question": "?"})
        assert response.json()["adapter"]["version"] == version


async def test_a_bad_query_names_its_field(http: httpx.AsyncClient) -> None:
    bad: list[tuple[Any, str]] = [
        ({}, "body.question"),
        ({"question": ""}, "body.question"),
        ({"question": "?", "max_tokens": 0}, "body.max_tokens"),
        ({"question": "?", "answer_schema": {}}, "body.answer_schema"),
        ({"question": "?", "more": 1}, "body.more"),
        ({"question": "?", "schema": "x"}, "body.schema"),
        ([], "body"),
    ]
    for body, field in bad:
        response = await http.post("/v1/users/ann/query", json=body)
        assert (response.status_code, response.json()["errors"][0]["field"]) == (422, field)
        assert response.headers["content-type"] == "application/problem+json"


async def test_a_user_id_that_is_no_name_is_refused(http: httpx.AsyncClient) -> None:
    for user in ("a b", "ä", "x" * 129, "%00", "a@b", "%2E%2E", "a%0Ab"):
        response = await http.get(f"/v1/users/{user}/profile")
        assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "path.user_id"), user


async def test_the_engines_refusal_is_passed_on_without_the_version(
    gateway: Gateway, http: httpx.AsyncClient, stand_in: StandInEngine
) -> None:
    manifest = await gateway.publish("ann")
    stand_in.refuse_with = (400, f"prompt too long for {manifest.version_id}")
    response = await http.post("/v1/users/ann/query", json={"question": "?"})
    assert (response.status_code, code(response)) == (400, "engine-refused")
    assert "prompt too long" in response.json()["detail"]
    assert manifest.version_id not in response.text


async def test_a_client_that_leaves_frees_the_engine(
    gateway: Gateway, http: httpx.AsyncClient, stand_in: StandInEngine
) -> None:
    await gateway.publish("ann")
    stand_in.seconds_between_events = 20
    asking = asyncio.create_task(http.post("/v1/users/ann/query", json={"question": "?"}))
    await until(lambda: bool(stand_in.running))
    asking.cancel()
    await until(lambda: not stand_in.running)
    assert (stand_in.running, stand_in.closed_early) == (0, 1)
