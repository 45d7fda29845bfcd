"""What every request passes: its id, its deadline, its line in the log, the limits of its body."""

from __future__ import annotations

import logging
import re
from typing import Any

import httpx
import pytest

from serving.gateway.app import create_app
from serving.gateway.settings import GatewaySettings
from tests.support.gateway_server import Gateway, StandInEngine
from tests.support.registry_server import serving
from tests.support.waiting import until

HELLO = {"model": "users/ann", "messages": [{"role": "user", "content": "a-secret-question"}]}


async def test_a_request_id_is_taken_made_answered_and_sent_to_the_engine(
    gateway: Gateway, http: httpx.AsyncClient, stand_in: StandInEngine
) -> None:
    await gateway.publish("ann")
    ids = []
    for given, kept in (("my-id.7", True), (None, False), ("with space", False), ("x" * 129, False)):
        headers = {} if given is None else {"x-request-id": given}
        answer = await http.post("/v1/chat/completions", json=HELLO, headers=headers)
        ids.append(answer.headers["x-request-id"])
        assert stand_in.headers[-1]["x-request-id"] == ids[-1]
        assert (ids[-1] == given) is kept
    assert len(set(ids)) == 4
    refused = await http.get("/v1/users/nobody/profile", headers={"x-request-id": "other"})
    assert (refused.status_code, refused.headers["x-request-id"]) == (404, "other")


async def test_the_log_has_a_line_a_request_without_content_or_names(
    gateway: Gateway, http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    await gateway.publish("somebody-secret")
    body = {**HELLO, "model": "users/somebody-secret"}
    with caplog.at_level(logging.INFO, logger="serving.gateway.requests"):
        await http.post("/v1/chat/completions", json=body, headers={"x-request-id": "r1"})
        await http.post("/v1/users/somebody-secret/query", json={"question": "a-secret-question"})
        await http.get("/v1/users/nobody/profile")
        await http.get("/healthz")
    lines: list[dict[str, Any]] = [record.fields for record in caplog.records if hasattr(record, "fields")]
    assert [line["route"] for line in lines] == [
        "/v1/chat/completions", "/v1/users/{user_id}/query", "/v1/users/{user_id}/profile"
    ]  # fmt: skip
    assert (lines[0]["request_id"], lines[0]["status"], lines[0]["tenant"]) == ("r1", 200, "default")
    assert lines[0]["user"] == lines[1]["user"] != lines[2]["user"]
    assert re.fullmatch("[0-9a-f]{16}", lines[0]["user"])
    assert re.fullmatch("k[0-9a-f]{32}", lines[0]["key_id"])
    assert "secret" not in str(lines)
    assert gateway.key not in str(lines)


async def test_a_deadline_ends_the_wait_and_frees_the_engine(
    gateway: Gateway, http: httpx.AsyncClient, stand_in: StandInEngine
) -> None:
    await gateway.publish("ann")
    stand_in.seconds_between_events = 20
    answer = await http.post("/v1/chat/completions", json=HELLO, headers={"x-lorry-deadline": "2.0"})
    assert answer.status_code == 504
    assert answer.json()["type"] in {"urn:lorry:problem:deadline-exceeded", "urn:lorry:problem:engine-timeout"}
    assert answer.json()["error"]["type"] == "server_error"
    assert 0 < float(stand_in.headers[0]["x-lorry-deadline"]) <= 2.0
    await until(lambda: not stand_in.running)


async def test_a_stream_ends_at_its_deadline_with_an_error_event(
    gateway: Gateway, http: httpx.AsyncClient, stand_in: StandInEngine
) -> None:
    await gateway.publish("ann")
    stand_in.seconds_between_events, stand_in.events = 0.05, 1000
    body = {"question": "?", "stream": True}
    answer = await http.post("/v1/users/ann/query", json=body, headers={"x-lorry-deadline": "2.0"})
    assert answer.status_code == 200
    assert "event: delta" in answer.text
    assert re.search(r"event: error\ndata: .*(deadline-exceeded|engine-timeout)", answer.text)
    assert "event: done" not in answer.text


async def test_without_a_deadline_the_settings_bound_the_wait_but_no_stream(
    gateway: Gateway, gateway_settings: GatewaySettings, stand_in: StandInEngine
) -> None:
    await gateway.publish("ann")
    settings = gateway_settings.model_copy(update={"gateway_deadline_seconds": 2.0})
    async with serving(create_app(settings)) as url, gateway.caller() as http:
        stand_in.seconds_between_events, stand_in.events = 0.5, 6
        stream = await http.post(f"{url}/v1/users/ann/query", json={"question": "?", "stream": True})
        assert "event: done" in stream.text
        stand_in.seconds_between_events = 20
        assert (await http.post(f"{url}/v1/users/ann/query", json={"question": "?"})).status_code == 504


async def test_a_deadline_that_is_no_time_is_refused(http: httpx.AsyncClient) -> None:
    for header in ("soon", "0", "-1", "nan", "inf", ""):
        answer = await http.get("/v1/models", headers={"x-lorry-deadline": header})
        assert (answer.status_code, answer.json()["field"]) == (422, "x-lorry-deadline"), header


async def test_each_route_has_its_own_limit_of_bytes(gateway: Gateway, gateway_settings: GatewaySettings) -> None:
    settings = gateway_settings.model_copy(
        update={"gateway_max_request_bytes": 1000, "gateway_max_transcript_bytes": 3000, "gateway_max_bulk_bytes": 6000}
    )
    routes = [
        ("POST", "/v1/users/ann/query", 1000),
        ("PUT", "/v1/users/ann/transcripts/t", 3000),
        ("POST", "/v1/users/ann/transcripts", 6000),
    ]
    async with serving(create_app(settings)) as url, gateway.caller() as http:
        for method, path, most in routes:
            assert (await http.request(method, url + path, content=b"x" * most)).status_code == 422, path
            refused = await http.request(method, url + path, content=b"x" * (most + 1))
            assert (refused.status_code, refused.json()["detail"]) == (413, f"at most {most} bytes are accepted")


async def test_nobodys_body_is_read_before_the_key(gateway_settings: GatewaySettings) -> None:
    app, sent = create_app(gateway_settings), []

    async def receive() -> Any:
        raise AssertionError("somebody read the body")

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/users/ann/transcripts", "headers": [], "query_string": b""}
    async with app.router.lifespan_context(app):
        await app(scope, receive, send)
    assert sent[0]["status"] == 401


@pytest.mark.parametrize("body", [b'{"question": "\\u0000"}', b"\xff", b"[" * 1000, b'{"question": "\\ud800"}'])
async def test_a_body_that_cannot_be_kept_is_refused_with_its_field(http: httpx.AsyncClient, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    answer = await http.post("/v1/users/ann/query", content=body, headers=headers)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"].startswith("body")
