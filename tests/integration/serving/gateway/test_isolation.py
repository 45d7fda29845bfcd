"""One tenant's key tried against everything of another, on every route there is."""

from __future__ import annotations

import json
from dataclasses import dataclass

import httpx

from serving.gateway.app import create_app
from serving.gateway.settings import GatewaySettings
from tests.support.gateway_routes import NAMES, ROUTES, WITHOUT_KEY, Route, described
from tests.support.gateway_server import Gateway, StandInEngine

SECRET = "the-lighthouse-keeper"
# What a key may do under another tenant's names in its own tenant: make or list what is its own.
OWN = {
    ("PUT", "/v1/users/{user_id}/transcripts/{transcript_id}"): {200},
    ("POST", "/v1/users/{user_id}/transcripts"): {200},
    ("GET", "/v1/users/{user_id}/transcripts"): {200},
    ("DELETE", "/v1/users/{user_id}/transcripts"): {200},
    ("POST", "/v1/users/{user_id}/trainings"): {201, 404, 409, 422},
    ("GET", "/v1/trainings"): {200},
    ("GET", "/v1/adapters"): {200},
    ("GET", "/v1/adapter-versions"): {200},
    ("GET", "/v1/usage"): {200},
    ("GET", "/v1/models"): {200},
    ("GET", "/v1/users/{user_id}/profile/corrections"): {200},
    ("POST", "/v1/users/{user_id}/profile/corrections"): {201},
    ("GET", "/v1/bank"): {200},
    ("PUT", "/v1/bank"): {200},
    ("DELETE", "/v1/bank"): {200},
    ("POST", "/v1/extractions"): {202},
    ("GET", "/v1/extractions"): {200},
    ("POST", "/v1/users/{user_id}/erasure"): {202},
}


@dataclass(frozen=True, kw_only=True)
class Victim:
    """What tenant `other` has: names that a caller could guess or steal, and words that must never be answered."""

    names: dict[str, str]
    version_id: str
    secrets: tuple[str, ...]


async def settle_in(gateway: Gateway, stand_in: StandInEngine) -> Victim:
    """Let tenant `other` have one of everything, about a user of hers."""
    user = "ann"
    await gateway.say(user, *[f"I am {SECRET} and I love green tea"] * 3, tenant="other")
    manifest = await gateway.publish(user, tenant="other")
    stand_in.answer = lambda body: json.dumps({"answers": [f"I am {SECRET}"]}) if "response_format" in body else SECRET
    async with gateway.caller(gateway.other_key) as other:
        turns = [{"role": "user", "text": f"{SECRET} again"}]
        put = await other.put(f"/v1/users/{user}/transcripts/talk-1", json={"turns": turns, "title": SECRET})
        put.raise_for_status()
        (await other.post(f"/v1/users/{user}/profile")).raise_for_status()
        training = (await other.post(f"/v1/users/{user}/trainings", json={"why": SECRET})).raise_for_status().json()
        (await other.post(f"/v1/users/{user}/query", json={"question": "?"})).raise_for_status()
        forbid = {"kind": "forbid", "fact": f"I hate {SECRET}", "by": "hers"}
        made = (await other.post(f"/v1/users/{user}/profile/corrections", json=forbid)).raise_for_status()
        batch = (await other.post("/v1/extractions", json={"users": [user]})).raise_for_status().json()["id"]
    return Victim(
        names={
            "user_id": user,
            "model": f"users/{user}",
            "training_id": training["id"],
            "extraction_id": batch,
            "correction_id": str(made.json()["id"]),
        },
        version_id=manifest.version_id,
        secrets=(SECRET, manifest.version_id, training["id"], put.json()["id"], batch),
    )


async def everything_of(gateway: Gateway, victim: Victim) -> list[str]:
    """Return what tenant `other` sees of its own: what an attack must leave as it was."""
    seen = []
    async with gateway.caller(gateway.other_key) as other:
        for route in ROUTES:
            is_there = "difference" not in route.path and "erasure" not in route.path
            if route.method == "GET" and route.path not in {"/v1/usage"} and is_there:
                answer = await route.call(other, **victim.names)
                assert answer.status_code == 200, (route, answer.text)
                seen.append(answer.text)
    return seen


def test_every_route_is_attacked(gateway_settings: GatewaySettings) -> None:
    routes = {(route.method, route.path) for route in ROUTES}
    assert described(create_app(gateway_settings)) - WITHOUT_KEY == routes
    assert OWN.keys() <= routes


async def test_a_key_reaches_nothing_of_another_tenant_on_any_route(gateway: Gateway, stand_in: StandInEngine) -> None:
    victim = await settle_in(gateway, stand_in)
    before = await everything_of(gateway, victim)
    asked = len(stand_in.requests)
    async with gateway.caller() as attacker:
        for route in ROUTES:
            answer = await attack(route, attacker, victim)
            sent = f"{answer.request.url} {answer.request.content.decode()}"
            leaked = [secret for secret in victim.secrets if secret in answer.text and secret not in sent]
            assert not leaked, (route.method, route.path, answer.text[:500])
            allowed = OWN.get((route.method, route.path), {404, 409, 422})
            assert answer.status_code in allowed, (route.method, route.path, answer.status_code, answer.text[:300])
    assert len(stand_in.requests) == asked, "no adapter of another tenant was asked anything"
    assert await everything_of(gateway, victim) == before


async def attack(route: Route, attacker: httpx.AsyncClient, victim: Victim) -> httpx.Response:
    """Send a route's request about what is the victim's, its ids included."""
    if isinstance(route.body, dict) and "version_id" in route.body:
        body = {**route.body, "version_id": victim.version_id}
        return await attacker.request(route.method, route.path.format(**{**NAMES, **victim.names}), json=body)
    own = {"transcript_id": "mine"} if route.method == "PUT" else {}
    return await route.call(attacker, **victim.names, **own)


async def test_names_of_another_tenant_cannot_be_smuggled_into_a_path_a_model_or_a_query(
    gateway: Gateway, stand_in: StandInEngine
) -> None:
    victim = await settle_in(gateway, stand_in)
    asked = len(stand_in.requests)
    users = [
        "../../other/users/ann",
        "..%2f..%2fother%2fusers%2fann",
        "%2e%2e",
        "other/ann",
        "ann%00",
        "ann%2fprofile",
        "~",
    ]
    async with gateway.caller() as attacker:
        answers = []
        for user in users:
            for path in (f"/v1/users/{user}/profile", f"/v1/adapters/{user}/profile", f"/v1/models/users/{user}"):
                answers.append(await attacker.get(path))
            answers.append(await attacker.post(f"/v1/users/{user}/query", json={"question": "?"}))
        models = [
            "tenants/other/users/ann",
            victim.version_id,
            "users/../other/ann",
            "base",
            f"users/ann@{victim.version_id}",
        ]
        for model in models:
            chat = {"model": model, "messages": [{"role": "user", "content": "?"}]}
            answers.append(await attacker.post("/v1/chat/completions", json=chat))
        for params in ({"tenant": "other"}, {"user_id": "ann", "tenant": "other"}):
            for path in ("/v1/trainings", "/v1/adapters", "/v1/usage", "/v1/adapter-versions"):
                answers.append(await attacker.get(path, params=params))
        headers = {"x-lorry-tenant": "other", "x-lorry-adapter": victim.version_id}
        answers.append(await attacker.post("/v1/users/ann/query", json={"question": "?"}, headers=headers))
    for answer in answers:
        assert answer.status_code < 500, answer.text
        for secret in (SECRET, victim.names["training_id"]):
            assert secret not in answer.text, answer.request.url
    assert len(stand_in.requests) == asked
