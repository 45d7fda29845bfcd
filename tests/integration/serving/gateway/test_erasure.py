"""Erasure over the API: asked for, reported, refused to other tenants; and everything about that user refused."""

from __future__ import annotations

import asyncio

import httpx
from sqlalchemy import text as sql

from serving.erasure.desk import ErasureDesk
from serving.erasure.report import STORES
from serving.erasure.repository import ErasureRepository
from serving.extraction.profile import compare_profiles
from serving.extraction.repository import ProfileRepository
from serving.gateway.app import create_app
from serving.gateway.settings import GatewaySettings
from tests.support.erasing import a_profile
from tests.support.gateway_routes import ROUTES
from tests.support.gateway_server import Gateway
from tests.support.registry_server import serving
from tests.support.steering import rows
from tests.support.training_jobs import talks
from tests.support.waiting import until
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


async def test_copies_that_remember_refuse_who_is_erased_at_once_where_it_was_asked_and_soon_elsewhere(
    gateway: Gateway, gateway_settings: GatewaySettings
) -> None:
    """What is read from the database is refused at once everywhere; only a question goes by what a copy remembers."""
    await gateway.publish("ann")
    await gateway.publish("bob", seed=2)
    for user in ("ann", "bob"):
        await add(gateway, user)
    settings = gateway_settings.model_copy(update={"gateway_cache_seconds": 2.0})
    query, keyed = {"question": "hi?"}, {"idempotency-key": "once"}
    async with (
        serving(create_app(settings)) as here,
        serving(create_app(settings)) as elsewhere,
        gateway.caller() as http,
    ):

        async def asked(url: str, user: str) -> httpx.Response:
            return await http.post(f"{url}/v1/users/{user}/query", json=query)

        kept = await http.post(f"{elsewhere}/v1/users/ann/query", json=query, headers=keyed)
        assert kept.status_code == 200
        for url in (here, elsewhere):
            for user in ("ann", "bob"):
                assert (await asked(url, user)).status_code == 200
        for refreshed in (False, True):  # also one whose list is renewed behind the caller's back just now
            if refreshed:
                await asyncio.sleep(1.2)
                assert (await asked(here, "ann")).status_code == 200
        assert (await http.post(f"{here}{ERASURE}")).status_code == 202
        for url, paths in (
            (here, ("transcripts", "profile", "profile/corrections", "profile/context")),
            (elsewhere, ("transcripts", "profile", "profile/corrections", "profile/context")),
        ):
            for path in paths:
                answer = await http.get(f"{url}/v1/users/ann/{path}")
                assert (answer.status_code, answer.json()["type"]) == (409, "urn:lorry:problem:being-erased"), path
        assert (await asked(here, "ann")).status_code == 409
        repeated = await http.post(f"{elsewhere}/v1/users/ann/query", json=query, headers=keyed)
        assert repeated.status_code == 409

        async def heard() -> bool:
            return (await asked(elsewhere, "ann")).status_code == 409

        await until(heard)
        for url in (here, elsewhere):
            assert (await asked(url, "bob")).status_code == 200


async def test_the_base_does_not_repeat_the_profile_of_who_is_erased(
    gateway: Gateway, gateway_settings: GatewaySettings
) -> None:
    """A fallback reads the profile, so it asks the database although a question does not."""
    await add(gateway, "ann")
    async with gateway.database.transaction() as session:
        profile = a_profile("ann", version_id="v" + "1" * 32, word="tea")
        await ProfileRepository(session).add("default", profile, difference=compare_profiles(None, profile))
    settings = gateway_settings.model_copy(update={"gateway_cache_seconds": 2.0})
    body = {"question": "hi?", "fallback": "profile"}
    async with serving(create_app(settings)) as url, gateway.caller() as http:
        assert (await http.post(f"{url}/v1/users/ann/query", json=body)).json()["fallback"] == "profile"
        await ErasureDesk(gateway.database).ask("default", "ann", asked_by="another copy")
        answer = await http.post(f"{url}/v1/users/ann/query", json=body)
        assert (answer.status_code, answer.json()["type"]) == (409, "urn:lorry:problem:being-erased")
