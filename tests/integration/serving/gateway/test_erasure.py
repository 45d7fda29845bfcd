"""Erasure over the API: asked for, reported, refused to other tenants; and everything about that user refused."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from serving.erasure.report import STORES
from serving.gateway.app import create_app
from serving.gateway.erasing import require_not_erasing
from serving.gateway.settings import GatewaySettings
from tests.support.gateway_server import Gateway
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


async def test_whoever_is_erased_is_not_answered_for(gateway: Gateway, http: httpx.AsyncClient) -> None:
    await gateway.publish("ann")
    await gateway.publish("bob", seed=2)
    await add(gateway, "ann")
    assert (await http.post(ERASURE)).status_code == 202
    chat = {"model": "users/ann", "messages": [{"role": "user", "content": "hi"}]}
    refused = [
        await http.get("/v1/users/ann/profile"),
        await http.post("/v1/users/ann/profile"),
        await http.post("/v1/users/ann/query", json={"question": "hi?"}),
        await http.post("/v1/chat/completions", json=chat),
        await http.get("/v1/models/users/ann"),
    ]
    assert [each.status_code for each in refused] == [409] * len(refused)
    assert {each.json()["type"] for each in refused} == {"urn:lorry:problem:being-erased"}
    assert (await http.post("/v1/users/bob/query", json={"question": "hi?"})).status_code == 200


def routes(app: FastAPI) -> list[APIRoute]:
    return [each for each in app.routes if isinstance(each, APIRoute) and "{user_id}" in each.path]


@pytest.fixture
def app(gateway_settings: GatewaySettings) -> FastAPI:
    return create_app(gateway_settings)


def test_every_route_about_a_user_refuses_those_who_are_erased(app: FastAPI) -> None:
    found = routes(app)
    assert len(found) > 3
    for route in found:
        guarded = require_not_erasing in {each.call for each in route.dependant.dependencies}
        assert guarded or route.path.endswith("/erasure"), f"{route.path} answers for users who are being erased"
