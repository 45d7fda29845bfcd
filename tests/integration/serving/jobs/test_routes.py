"""Batch extractions over HTTP: every refusal, tenants apart, results as lines while they come."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from serving.gateway.app import create_app
from serving.gateway.extraction_schemas import ResultLine
from serving.gateway.settings import GatewaySettings
from serving.jobs.limits import TenantLimits
from tests.support.extraction_jobs import Engine, Mill
from tests.support.gateway_server import Gateway
from tests.support.registry_server import serving

NOBODYS = "b" + "0" * 32


def code(response: httpx.Response) -> str:
    return str(response.json()["type"]).removeprefix("urn:lorry:problem:")


async def test_a_batch_is_submitted_watched_and_read_over_http(mill: Mill, http: httpx.AsyncClient) -> None:
    await mill.add_users("ann", "bob")
    submitted = await http.post("/v1/extractions", json={"users": ["ann", "bob", "ann"]})
    assert submitted.status_code == 202, submitted.text
    path = submitted.headers["location"]
    assert path == f"/v1/extractions/{submitted.json()['id']}"
    assert submitted.json()["progress"]["users"] == 2
    async with mill.working():
        await mill.until_ended(submitted.json()["id"])
    shown = (await http.get(path)).json()
    assert (shown["state"], shown["progress"]["done"]) == ("done", 2)
    answer = await http.get(f"{path}/results")
    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["sequence"] for line in lines] == [1, 2]
    assert {line["profile"]["user"] for line in lines} == {"ann", "bob"}
    rest = await http.get(f"{path}/results", params={"after": 1})
    assert [json.loads(line) for line in rest.text.splitlines()] == lines[1:]
    listed = (await http.get("/v1/extractions", params={"state": "done", "limit": 1})).json()
    assert [each["id"] for each in listed["extractions"]] == [shown["id"]]
    assert (await http.get("/v1/extractions", params={"before": listed["next_before"]})).json()["extractions"] == []


async def test_users_are_taken_as_lines_with_the_rest_in_the_query(mill: Mill, http: httpx.AsyncClient) -> None:
    lines = 'ann\n{"user_id": "bob"}\n\n"cy"\n'
    answer = await http.post(
        "/v1/extractions",
        content=lines,
        headers={"content-type": "application/x-ndjson; charset=utf-8"},
        params={"only": "stale", "max_age_days": "7", "webhook": "https://example.org/hook"},
    )
    assert answer.status_code == 202, answer.text
    body = answer.json()
    assert body["progress"]["users"] == 3
    assert body["selection"] == {"everybody": False, "only": "stale", "max_age_days": 7.0}
    assert body["webhook"]["url"] == "https://example.org/hook"


async def test_results_are_streamed_while_the_batch_runs_until_it_ends(
    mill: Mill, http: httpx.AsyncClient, stand_in: Engine
) -> None:
    await mill.add_users("ann", "bob")
    second = sorted(mill.versions.values())[1]
    stand_in.hold_at(second)
    batch = await mill.submit("ann", "bob")
    async with mill.working(extraction_users_at_once=1):
        results = http.stream("GET", f"/v1/extractions/{batch.id}/results", params={"follow": True})
        async with asyncio.timeout(300), results as answer:
            lines = answer.aiter_lines()
            assert json.loads(await anext(lines))["sequence"] == 1
            assert (await mill.get(batch.id)).state == "running"
            stand_in.open.set()
            assert json.loads(await anext(lines))["sequence"] == 2
            with pytest.raises(StopAsyncIteration):
                await anext(lines)


async def test_batches_are_paused_resumed_and_canceled_over_http(mill: Mill, http: httpx.AsyncClient) -> None:
    batch = await mill.submit("ann")
    path = f"/v1/extractions/{batch.id}"
    for verb, state in (("pause", "paused"), ("pause", "paused"), ("resume", "queued"), ("cancel", "canceled")):
        answer = await http.post(f"{path}/{verb}")
        assert (answer.status_code, answer.json()["state"]) == (200, state)
    refused = await http.post(f"{path}/pause")
    assert (refused.status_code, code(refused)) == (409, "illegal-batch-transition")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "users"),
        ({"users": []}, "body.users"),
        ({"users": ["a/b"]}, "body.users.0"),
        ({"users": ["a"], "everybody": True}, "users"),
        ({"users": ["a"], "only": "some"}, "body.only"),
        ({"users": ["a"], "max_age_days": 3}, "max_age_days"),
        ({"users": ["a"], "more": 1}, "body.more"),
        ({"users": ["a"], "webhook": {"url": "ftp://example.org/"}}, "webhook.url"),
        ([], "body"),
        ("text", "body"),
    ],
)
async def test_a_submission_that_cannot_be_used_names_the_field(http: httpx.AsyncClient, body: Any, field: str) -> None:
    answer = await http.post("/v1/extractions", json=body)
    assert answer.status_code == 422
    found = answer.json()
    assert field == found.get("field", found.get("errors", [{}])[0].get("field")), found


@pytest.mark.parametrize(
    ("content", "media_type", "status", "problem"),
    [
        (b"{", "application/json", 422, "batch-request-invalid"),
        (b'{"users": ["\\u0000"]}', "application/json", 422, "batch-request-invalid"),
        (b"\xff", "application/x-ndjson", 422, "batch-request-invalid"),
        (b"\n\n", "application/x-ndjson", 422, "batch-request-invalid"),
        (b"ann\na b", "application/x-ndjson", 422, "batch-request-invalid"),
        (b"ann", "text/csv", 415, "media-type-unsupported"),
        (b"a\n" * 60_000, "application/x-ndjson", 413, "request-too-large"),
    ],
)
async def test_a_body_that_cannot_be_read_is_refused_and_nothing_is_queued(
    mill: Mill, http: httpx.AsyncClient, content: bytes, media_type: str, status: int, problem: str
) -> None:
    answer = await http.post("/v1/extractions", content=content, headers={"content-type": media_type})
    assert (answer.status_code, code(answer)) == (status, problem)
    assert await mill.batches.list(tenant="default") == []


async def test_another_tenants_batch_is_not_there_on_any_route(
    mill: Mill, gateway: Gateway, http: httpx.AsyncClient
) -> None:
    theirs = await mill.submit("ann", tenant="other")
    for id_ in (theirs.id, NOBODYS):
        path = f"/v1/extractions/{id_}"
        answers = [await http.get(path), await http.get(f"{path}/results")]
        answers += [await http.post(f"{path}/{verb}") for verb in ("pause", "resume", "cancel")]
        assert {(answer.status_code, code(answer)) for answer in answers} == {(404, "batch-not-found")}
    assert (await http.get("/v1/extractions")).json()["extractions"] == []
    assert (await http.get("/v1/extractions", params={"before": theirs.id})).json()["extractions"] == []
    assert (await mill.batches.get(theirs.id, tenant="other")).state == "queued"


async def test_without_a_key_nothing_is_told(mill: Mill) -> None:
    async with httpx.AsyncClient(timeout=60, base_url=mill.gateway.url, trust_env=False) as stranger:
        for method, path in (("POST", ""), ("GET", ""), ("GET", f"/{NOBODYS}"), ("GET", f"/{NOBODYS}/results")):
            assert (await stranger.request(method, f"/v1/extractions{path}")).status_code == 401


async def test_limits_are_429_and_422_with_the_numbers(mill: Mill, http: httpx.AsyncClient) -> None:
    await TenantLimits(mill.database, mill.batch_settings).put("default", max_batches=1, max_users=2)
    many = await http.post("/v1/extractions", json={"users": ["a", "b", "c"]})
    assert (many.status_code, code(many)) == (422, "too-many-users")
    assert (await http.post("/v1/extractions", json={"users": ["a"]})).status_code == 202
    busy = await http.post("/v1/extractions", json={"users": ["a"]})
    assert (busy.status_code, code(busy)) == (429, "too-many-batches")
    assert "retry-after" in busy.headers


async def test_a_stream_that_cannot_go_on_ends_with_the_reason(mill: Mill, gateway_settings: GatewaySettings) -> None:
    await mill.add_users("ann")
    async with mill.working():
        batch = await mill.until_ended((await mill.submit("ann")).id)
    away = {"s3_endpoint_url": "http://127.0.0.1:1", "s3_attempts": 1}
    headers = {"authorization": f"Bearer {mill.gateway.key}"}
    async with (
        serving(create_app(gateway_settings.model_copy(update=away))) as url,
        httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=30) as http,
    ):
        answer = await http.get(f"/v1/extractions/{batch.id}/results")
    (line,) = [json.loads(line) for line in answer.text.splitlines()]
    assert line["error"]["code"] == "storage-unavailable"
    assert "sequence" not in line


async def test_the_routes_say_in_openapi_what_they_take_and_refuse(http: httpx.AsyncClient) -> None:
    described = (await http.get("/openapi.json")).json()["paths"]
    submission = described["/v1/extractions"]["post"]
    assert set(submission["requestBody"]["content"]) == {"application/json", "application/x-ndjson"}
    assert "users" in submission["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert {"202", "401", "409", "413", "415", "422", "429", "503"} <= set(submission["responses"])
    results = described["/v1/extractions/{extraction_id}/results"]["get"]["responses"]
    assert set(results["200"]["content"]) == {"application/x-ndjson"}
    assert {"401", "404", "422", "503"} <= set(results)


async def test_results_do_not_bring_back_what_was_deleted_or_forbidden_since(
    mill: Mill, http: httpx.AsyncClient
) -> None:
    await mill.add_users("ann", "bob")
    batch = await mill.submit("ann", "bob")
    async with mill.working():
        await mill.until_ended(batch.id)
    path = f"/v1/extractions/{batch.id}/results"
    assert (await http.get(path)).text.count('"text":"I love green tea"') == 2
    (listed,) = (await http.get("/v1/users/ann/transcripts")).json()["transcripts"]
    (await http.delete(f"/v1/users/ann/transcripts/{listed['id']}")).raise_for_status()
    assert (await http.get(path)).text.count('"text":"I love green tea"') == 1
    body = {"kind": "forbid", "fact": "I love green tea", "by": "bob"}
    (await http.post("/v1/users/bob/profile/corrections", json=body)).raise_for_status()
    last = await http.get(path)
    assert "green tea" not in last.text
    assert {json.loads(line)["profile"]["user"] for line in last.text.splitlines()} == {"ann", "bob"}


async def test_results_have_profiles_for_keys_that_may_read_profiles_and_say_so_to_others(
    mill: Mill, gateway: Gateway
) -> None:
    await mill.add_users("ann")
    batch = await mill.submit("ann", "nobody")
    async with mill.working():
        await mill.until_ended(batch.id)
    path = f"/v1/extractions/{batch.id}/results"
    lines = {}
    for scopes in (("extractions:read",), ("extractions:read", "profiles:read")):
        async with gateway.caller(await gateway.make_key(*scopes)) as http:
            answer = await http.get(path)
            lines[scopes] = [ResultLine.model_validate_json(line) for line in answer.text.splitlines()]
            assert ("I love green tea" in answer.text) is ("profiles:read" in scopes)
            assert (await http.get(f"/v1/extractions/{batch.id}")).status_code == 200
    alone, both = lines.values()
    assert {line.withheld for line in alone} == {"profiles:read"}
    assert {line.withheld for line in both} == {None}
    assert {line.user_id: line.profile is not None for line in both} == {"ann": True, "nobody": False}
    bare = {"profile": None, "withheld": None}
    assert [line.model_copy(update=bare) for line in alone] == [line.model_copy(update=bare) for line in both]
    async with gateway.caller(await gateway.make_key("profiles:read")) as http:
        assert (await http.get(path)).status_code == 403


async def test_results_do_not_show_the_profile_of_who_is_being_erased(mill: Mill, http: httpx.AsyncClient) -> None:
    await mill.add_users("ann", "bob")
    batch = await mill.submit("ann", "bob")
    async with mill.working():
        await mill.until_ended(batch.id)
    assert (await http.post("/v1/users/ann/erasure")).status_code == 202
    answer = await http.get(f"/v1/extractions/{batch.id}/results")
    lines = {line["user_id"]: line for line in map(json.loads, answer.text.splitlines())}
    assert (lines["ann"]["profile"], lines["ann"]["error"]["code"]) == (None, "being-erased")
    assert lines["bob"]["profile"]["user"] == "bob"
    assert answer.text.count('"text":"I love green tea"') == 1
