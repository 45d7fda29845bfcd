"""Large bodies are checked, parsed and made into what they are beside the event loop; everybody else is served on."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute

from kit.beside import LARGE_BYTES, THREADS, beside
from kit.database import Database
from serving.gateway.app import create_app
from serving.gateway.body_route import BodyRoute
from serving.gateway.settings import GatewaySettings
from tests.support.gateway_server import Gateway
from tests.support.waiting import until
from transcripts.store import TranscriptStore

TRANSCRIPTS = "/v1/users/ann/transcripts"
PADDING = "x" * LARGE_BYTES
# What grows with a body, by file and function.
HEAVY = {
    ("json_guard.py", "objection"),
    ("beside.py", "parse_json"),
    ("body_route.py", "_read"),
    ("schemas.py", "to_transcript"),
    ("lines.py", "read_lines"),
    ("endpoints.py", "_judge"),
    ("extraction_endpoints.py", "_read_submission"),
    ("transcript.py", "id"),
    ("store.py", "_check"),
    ("repository.py", "_transcript_row"),
}


def conversation(*, large: bool) -> dict[str, Any]:
    turns = [{"role": "user", "text": f"I like tea number {number}"} for number in range(2000 if large else 2)]
    return {"title": "Tea", "turns": turns}


@contextmanager
def on_the_loop() -> Iterator[set[tuple[str, str]]]:
    """Note which of the heavy functions are called on this thread, which is the event loop's, while the block runs."""
    called: set[tuple[str, str]] = set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            called.add((Path(frame.f_code.co_filename).name, frame.f_code.co_name))

    sys.setprofile(note)
    try:
        yield called
    finally:
        sys.setprofile(None)
        called &= HEAVY


async def test_others_are_answered_while_large_bodies_wait_for_their_turn(
    gateway: Gateway, http: httpx.AsyncClient, database: Database
) -> None:
    await gateway.publish("ann")
    may_go_on = threading.Event()
    busy = [asyncio.create_task(beside(LARGE_BYTES + 1, may_go_on.wait, 60)) for _ in range(THREADS)]
    lines = json.dumps({"id": "bulk", **conversation(large=True)}).encode()
    waiting = [
        asyncio.create_task(request)
        for request in (
            http.put(f"{TRANSCRIPTS}/large", json=conversation(large=True)),
            http.post(TRANSCRIPTS, content=lines),
            http.post("/v1/users/ann/query", json={"question": "hi?", "padding": PADDING}),
        )
    ]
    try:
        for _ in range(3):
            small = await http.put(f"{TRANSCRIPTS}/small", json=conversation(large=False))
            assert small.status_code == 200
            assert (await http.post("/v1/users/ann/query", json={"question": "hi?"})).status_code == 200
        await asyncio.sleep(0.1)
        assert not any(task.done() for task in waiting)
    finally:
        may_go_on.set()
        await asyncio.gather(*busy)
    answers = await asyncio.gather(*waiting)
    assert [answer.status_code for answer in answers] == [200, 200, 422]
    assert answers[0].json()["created"] + answers[1].json()["created"] == 1, "they say the same"
    async with database.reading() as session:
        assert (await TranscriptStore(session).summary("default", "ann")).turns == 2002


async def test_nothing_that_grows_with_a_large_body_is_done_on_the_event_loop(http: httpx.AsyncClient) -> None:
    body = json.dumps(conversation(large=True)).encode()
    assert len(body) > LARGE_BYTES
    keyed = {"content-type": "application/json", "idempotency-key": "k"}
    users = json.dumps({"users": [f"user-{number}" for number in range(6000)]}).encode()
    names = b"\n".join(b"user-%d" % number for number in range(8000))
    assert min(len(users), len(names)) > LARGE_BYTES
    line = json.dumps({"id": "bulk", **conversation(large=True)}).encode()
    with on_the_loop() as called:
        answers = [
            await http.put(f"{TRANSCRIPTS}/large", content=body, headers=keyed),
            await http.post(TRANSCRIPTS, content=line),
            await http.post("/v1/extractions", content=users, headers={"content-type": "application/json"}),
            await http.post("/v1/extractions", content=names, headers={"content-type": "application/x-ndjson"}),
        ]
    assert [answer.status_code for answer in answers] == [200, 200, 202, 202], [answer.text for answer in answers]
    assert called == set()


async def test_a_small_body_is_not_handed_to_another_thread_to_be_read(http: httpx.AsyncClient) -> None:
    with on_the_loop() as called:
        put = await http.put(f"{TRANSCRIPTS}/small", json=conversation(large=False))
        line = json.dumps({"id": "bulk", **conversation(large=False)}).encode()
        bulk = await http.post(TRANSCRIPTS, content=line)
        batch = await http.post("/v1/extractions", json={"users": ["ann"]})
    assert [put.status_code, bulk.status_code, batch.status_code] == [200, 200, 202]
    assert called >= {
        ("json_guard.py", "objection"),
        ("beside.py", "parse_json"),
        ("body_route.py", "_read"),
        ("endpoints.py", "_judge"),
        ("extraction_endpoints.py", "_read_submission"),
    }


@pytest.mark.parametrize(
    ("method", "path", "beginning", "status"),
    [
        ("PUT", f"{TRANSCRIPTS}/t", '{"turns": [{"role": "nobody", "text": "a"}, {"role": "user"}], "more": 1', 422),
        ("PUT", f"{TRANSCRIPTS}/t", '{"turns": [{"role": "other", "text": "a"}]', 422),
        ("PUT", f"{TRANSCRIPTS}/t", '{"turns": []', 422),
        ("PUT", f"{TRANSCRIPTS}/t", '{"title": "\\u0000", "turns": []', 422),
        ("PUT", f"{TRANSCRIPTS}/t", '{"title": "\\ud800", "turns": []', 422),
        ("PUT", f"{TRANSCRIPTS}/t", '{"title": ' + "[" * 65 + "]" * 65, 422),
        ("PUT", f"{TRANSCRIPTS}/t", '{"turns": tru', 422),
        ("PUT", f"{TRANSCRIPTS}/t", '{"turns": ' + "9" * 5000, 422),
        ("PUT", f"{TRANSCRIPTS}/a%20b", '{"turns": 1', 422),
        ("PUT", f"{TRANSCRIPTS}/t", '["turns"', 422),
        ("POST", "/v1/users/ann/trainings", '{"settings": {"steps": "many"}', 422),
        ("POST", "/v1/adapters/ann/profile/promote", '{"more": 1', 422),
        ("POST", "/v1/chat/completions", '{"model": "users/ann", "messages": 7, "temperature": 9', 422),
        ("POST", "/v1/extractions", '{"users": ["a b"]', 422),
        ("POST", "/v1/extractions", '{"users": ["\\u0000"]', 422),
    ],
)
async def test_what_is_wrong_with_a_large_body_is_said_as_of_a_small_one(
    http: httpx.AsyncClient, method: str, path: str, beginning: str, status: int
) -> None:
    """White space makes it large, and changes nothing of what it says."""
    end = "]" if beginning[0] == "[" else "}"
    said = []
    for room in ("", " " * LARGE_BYTES):
        content = f"{beginning}{end}{room}".encode()
        answer = await http.request(method, path, content=content, headers={"content-type": "application/json"})
        assert answer.status_code == status, answer.text
        said.append(answer.json())
    assert said[0] == said[1]


async def test_a_large_body_is_refused_for_the_key_or_the_user_before_what_is_wrong_with_it_is_told(
    gateway: Gateway, http: httpx.AsyncClient
) -> None:
    wrong = {"turns": 7, "padding": PADDING}
    async with gateway.caller(await gateway.make_key("query")) as other:
        assert (await other.put(f"{TRANSCRIPTS}/t", json=wrong)).status_code == 403
    await http.put(f"{TRANSCRIPTS}/t", json=conversation(large=False))
    assert (await http.post("/v1/users/ann/erasure")).status_code == 202
    assert (await http.put(f"{TRANSCRIPTS}/t", json=wrong)).status_code == 409
    text = await http.put("/v1/users/bob/transcripts/t", content=PADDING + "x", headers={"content-type": "text/plain"})
    assert text.status_code == 422


async def test_of_a_large_bodys_faults_not_more_are_told_than_somebody_reads(http: httpx.AsyncClient) -> None:
    wrong = {"turns": [{"role": "user", "txt": "x"} for _ in range(5000)]}
    answer = await http.put(f"{TRANSCRIPTS}/t", json=wrong)
    assert answer.status_code == 422
    assert len(answer.json()["errors"]) == 100
    assert answer.json()["errors"][0] == {"field": "body.turns.0.text", "reason": "is missing"}


async def test_a_large_line_of_a_bulk_upload_is_judged_as_a_small_one(http: httpx.AsyncClient) -> None:
    lines = [
        {"id": "a", **conversation(large=True)},
        {"id": "b", **conversation(large=True), "more": PADDING},
        {"id": "c", "turns": [{"role": "user", "text": PADDING + "\x00"}]},
    ]
    content = b"\n".join(json.dumps(line).encode() for line in lines) + b'\n{"id": "d", "title": "' + PADDING.encode()
    result = (await http.post(TRANSCRIPTS, content=content)).json()
    assert result["created"] == 1
    refused = [(each["line"], each["field"]) for each in result["refused"]]
    assert refused == [(2, "more"), (3, "turns.0.text"), (4, "line")]
    assert result["refused"][2]["reason"].startswith("is not JSON: Unterminated string")


def test_every_route_that_takes_a_body_reads_it_beside_the_loop(gateway_settings: GatewaySettings) -> None:
    routes = [route for route in create_app(gateway_settings).routes if isinstance(route, APIRoute)]
    with_body = [route for route in routes if route.body_field is not None]
    assert len(with_body) > 10
    assert {route.path for route in with_body if not isinstance(route, BodyRoute)} == set()


async def test_a_large_body_that_nobody_waits_for_any_more_holds_nothing_up(http: httpx.AsyncClient) -> None:
    may_go_on = threading.Event()
    busy = [asyncio.create_task(beside(LARGE_BYTES + 1, may_go_on.wait, 60)) for _ in range(THREADS)]
    late = await http.put(f"{TRANSCRIPTS}/t", json=conversation(large=True), headers={"x-lorry-deadline": "0.2"})
    assert late.status_code == 504
    may_go_on.set()
    await asyncio.gather(*busy)
    await until(lambda: all(task.done() for task in busy))
    assert (await http.put(f"{TRANSCRIPTS}/t", json=conversation(large=True))).json()["created"] is True
