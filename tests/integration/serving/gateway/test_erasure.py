"""Erasure over the API: asked for, reported, refused to other tenants; and everything about that user refused."""

from __future__ import annotations

import httpx
from sqlalchemy import text as sql

from serving.erasure.report import STORES
from serving.erasure.repository import ErasureRepository
from tests.support.gateway_routes import ROUTES
from tests.support.gateway_server import Gateway
from tests.support.steering import rows
from tests.support.training_jobs import talks
from transcripts.store import TranscriptStore

ERASURE = "/v1/users/ann/erasure"


async def add(gateway: Gateway, user: str, *, tenant: str = "default") -> None:
    async with gateway.database.transaction() as session:
        await TranscriptStore(session).add(tenant, user, talks(user))


async def test_an_erasure_is_accepted_reported_and_asked_for_again(gateway: Gateway, http: httpx.AsyncClient) -> None:
    await add(gateway, "ann")
    asked = await http.post(ERASURE)
    assert asked.status_code == 202
    assert asked.headers["location"] == ERASURE
    body = asked.json()
    assert (body["state"], [each["store"] for each in body["stores"]]) == ("running", list(STORES))
    assert "ann" not in asked.text
    assert (await http.get(ERASURE)).json() == body
    assert (await http.post(ERASURE)).json()["id"] == body["id"]


async def test_erasing_an_unknown_user_is_404(http: httpx.AsyncClient) -> None:
    for answer in (await http.post(ERASURE), await http.get(ERASURE)):
        assert answer.status_code == 404
        assert answer.json()["type"] in {"urn:lorry:problem:unknown-user", "urn:lorry:problem:never-erased"}
    assert (await http.post("/v1/users/a%20b/erasure")).status_code == 422


async def test_a_tenant_can_neither_erase_nor_watch_the_user_of_another(
    gateway: Gateway, http: httpx.AsyncClient
) -> None:
    await add(gateway, "ann")
    headers = {"authorization": f"Bearer {gateway.other_key}"}
    assert (await http.post(ERASURE, headers=headers)).status_code == 404
    assert (await http.post(ERASURE, headers={"authorization": "Bearer x"})).status_code == 401
    assert (await http.post(ERASURE)).status_code == 202
    assert (await http.get(ERASURE, headers=headers)).status_code == 404
    await add(gateway, "ann", tenant="other")  # who is somebody else


async def test_prometheus_hears_how_long_nobody_has_worked_on_an_erasure_and_not_on_whose(
    gateway: Gateway, http: httpx.AsyncClient
) -> None:
    await add(gateway, "ann")
    await http.post(ERASURE)
    text = (await http.get("/metrics")).text
    assert "lorry_erasures_running 1.0" in text
    assert "ann" not in text
    async with gateway.database.transaction() as session:
        await session.execute(sql("update erasure set asked_at = now() - interval '1 hour'"))
        repository = ErasureRepository(session)
        (task,) = await repository.running()
        left_alone = await repository.backlog()
        assert min(left_alone.oldest_seconds, left_alone.unattended_seconds) > 3500
        await repository.begin_step(task.id, "intake", found={})
        looked_at = await repository.backlog()
        assert (looked_at.oldest_seconds > 3500, looked_at.unattended_seconds < 600) == (True, True)
        await repository.finish(task.id)
        assert (await repository.backlog()).running == 0


async def test_every_route_that_names_who_is_erased_refuses(gateway: Gateway, http: httpx.AsyncClient) -> None:
    await gateway.publish("ann")
    await gateway.publish("bob", seed=2)
    await add(gateway, "ann")
    assert (await http.post(ERASURE)).status_code == 202
    naming = [route for route in ROUTES if "{user_id}" in route.path or "model" in f"{route.path}{route.body}"]
    about = [route for route in naming if route.scope != "erase" and route.path != "/v1/models"]
    assert len(about) > 25
    for route in about:
        answer = await route.call(http)
        assert (answer.status_code, answer.json()["type"]) == (409, "urn:lorry:problem:being-erased"), route
    assert (await http.post("/v1/users/bob/query", json={"question": "hi?"})).status_code == 200
    submitted = await http.post("/v1/extractions", json={"users": ["ann", "bob"]})
    assert submitted.json()["progress"]["canceled"] == 1


async def test_whose_key_may_not_do_it_is_not_told_that_somebody_is_erased(
    gateway: Gateway, http: httpx.AsyncClient
) -> None:
    await add(gateway, "ann")
    await http.post(ERASURE)
    async with gateway.caller(await gateway.make_key("query")) as other:
        assert (await other.get("/v1/users/ann/transcripts")).status_code == 403
        assert (await other.get(ERASURE)).status_code == 403


async def test_an_answer_that_is_kept_is_not_given_again_once_its_user_is_erased(
    gateway: Gateway, http: httpx.AsyncClient
) -> None:
    await gateway.publish("ann")
    headers, body = {"idempotency-key": "once"}, {"question": "hi?"}
    first = await http.post("/v1/users/ann/query", json=body, headers=headers)
    assert (await http.post("/v1/users/ann/query", json=body, headers=headers)).text == first.text
    assert (await http.post(ERASURE, headers={"idempotency-key": "erase"})).status_code == 202
    again = await http.post("/v1/users/ann/query", json=body, headers=headers)
    assert (again.status_code, again.json()["type"]) == (409, "urn:lorry:problem:being-erased")
    assert (await http.post(ERASURE, headers={"idempotency-key": "erase"})).status_code == 202
    kept = await rows(gateway.database, "select key from gateway_request")
    assert kept == [("once",)], "that somebody asked to erase them is not kept beside their name"


async def test_an_answer_to_canceling_a_training_is_kept_as_its_users(
    gateway: Gateway, http: httpx.AsyncClient
) -> None:
    await add(gateway, "ann")
    training = (await http.post("/v1/users/ann/trainings", json={})).json()["id"]
    canceled = await http.post(f"/v1/trainings/{training}/cancel", headers={"idempotency-key": "stop"})
    assert canceled.status_code == 200
    assert await rows(gateway.database, "select user_id from gateway_request") == [("ann",)]
