"""Trainings over HTTP: the real training service behind the gateway; no worker is needed to ask for things."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from kit.database import Database
from serving.gateway.app import create_app
from serving.gateway.settings import GatewaySettings
from tests.support.gateway_server import Gateway
from tests.support.registry_server import serving
from tests.support.training_jobs import talks
from tests.support.waiting import until
from transcripts.store import TranscriptStore

SUBMIT = "/v1/users/ann/trainings"


@pytest.fixture(autouse=True)
async def _ann_has_talked(database: Database) -> None:
    async with database.transaction() as session:
        await TranscriptStore(session).add("default", "ann", talks("ann"))


async def test_a_training_waits_goes_on_and_is_tried_again_as_its_state_allows(http: httpx.AsyncClient) -> None:
    training = (await http.post(SUBMIT, json={})).json()["id"]

    async def steer(verb: str) -> tuple[int, str]:
        answer = await http.post(f"/v1/trainings/{training}/{verb}")
        return answer.status_code, answer.json()["state" if answer.is_success else "reason"]

    refused = (409, "illegal-job-transition")
    assert await steer("resume") == refused
    assert await steer("pause") == (200, "paused")
    assert await steer("retry") == refused
    assert await steer("resume") == (200, "queued")
    assert await steer("cancel") == (200, "canceled")
    assert await steer("pause") == refused
    assert await steer("retry") == (200, "queued")
    assert (await http.get(f"/v1/trainings/{training}")).json()["state"] == "queued"
    kinds = [event["kind"] for event in (await http.get(f"/v1/trainings/{training}/events")).json()["events"]]
    assert kinds == ["submitted", "paused", "resumed", "canceled", "retried"]


async def test_a_training_is_submitted_listed_shown_and_cancelled(http: httpx.AsyncClient) -> None:
    submitted = await http.post(SUBMIT, json={"settings": {"steps": 3, "learning_rate": 0.01}, "why": "asked for"})
    assert submitted.status_code == 201, submitted.text
    training = submitted.json()
    assert (training["state"], training["user_id"], training["adapter"]) == ("queued", "ann", "profile")
    assert not {"tenant", "worker_id", "base", "settings", "priority"} & training.keys()
    assert (await http.get(f"/v1/trainings/{training['id']}")).json() == {**training, "dataset": None}
    assert (await http.get("/v1/trainings", params={"user_id": "ann", "state": ["queued", "running"]})).json() == {
        "trainings": [training],
        "next_cursor": None,
    }
    assert (await http.get("/v1/trainings", params={"user_id": "bob"})).json()["trainings"] == []
    active = await http.post(SUBMIT, json={})
    assert (active.status_code, active.json()["job_id"]) == (409, training["id"])
    assert active.json()["reason"] == "training-active"
    cancelled = await http.post(f"/v1/trainings/{training['id']}/cancel")
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "canceled")
    again = await http.post(f"/v1/trainings/{training['id']}/cancel")
    assert again.status_code in {200, 409}


async def test_trainings_come_in_pages(http: httpx.AsyncClient) -> None:
    made = []
    for _ in range(3):
        training = (await http.post(SUBMIT, json={})).json()
        await http.post(f"/v1/trainings/{training['id']}/cancel")
        made.append(training["id"])
    first = (await http.get("/v1/trainings", params={"limit": 2})).json()
    second = (await http.get("/v1/trainings", params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert [each["id"] for page in (first, second) for each in page["trainings"]] == made[::-1]
    assert second["next_cursor"] is None


async def test_events_are_listed_and_streamed_until_the_end(http: httpx.AsyncClient) -> None:
    training = (await http.post(SUBMIT, json={})).json()
    path = f"/v1/trainings/{training['id']}/events"
    events = (await http.get(path)).json()["events"]
    assert [event["kind"] for event in events][:1] == ["submitted"]
    assert (await http.get(path, params={"after": events[-1]["id"]})).json() == {"events": []}
    frames: list[str] = []

    async def listen() -> None:
        async with http.stream("GET", path, headers={"accept": "text/event-stream"}) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            async for line in stream.aiter_lines():
                frames.append(line)

    listening = asyncio.create_task(listen())
    await until(lambda: any(line.startswith("event: event") for line in frames))
    await http.post(f"/v1/trainings/{training['id']}/cancel")
    await asyncio.wait_for(listening, 120)
    assert "event: end" in frames
    last = next(line for line in reversed(frames) if line.startswith("data:"))
    assert '"state":"canceled"' in last
    assert "worker_id" not in last


async def test_another_tenants_training_is_not_there(gateway: Gateway, http: httpx.AsyncClient) -> None:
    training = (await http.post(SUBMIT, json={})).json()
    async with gateway.caller(gateway.other_key) as other:
        steering = (("POST", f"/{verb}") for verb in ("cancel", "pause", "resume", "retry"))
        for method, path in (("GET", ""), *steering, ("GET", "/events")):
            answer = await other.request(method, f"/v1/trainings/{training['id']}{path}")
            assert answer.status_code == 404, path
        stream = await other.get(f"/v1/trainings/{training['id']}/events", headers={"accept": "text/event-stream"})
        assert stream.status_code == 404
        assert (await other.get("/v1/trainings")).json()["trainings"] == []
    assert (await http.get(f"/v1/trainings/{training['id']}")).json()["state"] == "queued"


async def test_a_caller_chooses_no_base_writer_or_priority(http: httpx.AsyncClient) -> None:
    for body in (
        {"base": "/etc"},
        {"priority": 1000},
        {"settings": {"dataset.writer": "claude"}},
        {"settings": {"steps": "many"}},
        {"settings": {"out": 1}},
    ):
        assert (await http.post(SUBMIT, json=body)).status_code == 422, body
    endless = await http.post(
        SUBMIT, content=b'{"settings": {"alpha": NaN}}', headers={"content-type": "application/json"}
    )
    assert endless.status_code == 422
    refused = await http.post(SUBMIT, json={"settings": {"steps": -1}})
    assert refused.status_code == 422
    assert "steps" in refused.json()["detail"]


async def test_without_a_training_service_trainings_are_refused_and_all_else_works(
    gateway: Gateway, gateway_settings: GatewaySettings
) -> None:
    for change in ({"training_url": None}, {"training_url": "http://127.0.0.1:9"}):
        async with serving(create_app(gateway_settings.model_copy(update=change))) as url, gateway.caller() as http:
            answer = await http.post(url + SUBMIT, json={})
            assert (answer.status_code, answer.json()["type"]) == (503, "urn:lorry:problem:training-unavailable")
            assert (await http.get(f"{url}/v1/models")).status_code == 200
