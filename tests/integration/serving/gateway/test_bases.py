"""A campaign moves users to another base one by one: each is answered by an engine of their version's base."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import openai
import pytest

from registry.client import RegistryClient
from registry.manifest import BaseIdentity, Manifest, Owner
from serving.gateway.settings import GatewaySettings
from tests.support.adapters import BASE, BASE_CONFIG, NEXT_BASE
from tests.support.gateway_server import Gateway, StandInEngine
from tests.support.registry_server import serving
from tests.support.waiting import until

NOBODYS = BASE.model_copy(update={"id": "test/nobodys", "weights_sha256": "6" * 64})
QUESTION = {"question": "What do you like?"}
PROBLEM = "urn:lorry:problem:base-without-engine"
SAID = ("I love green tea, what about you?", "I hate mornings", "my dog is called Rex") * 3


class Bases:
    """Which base each version was made for, as engines learn it with an adapter."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._ids: dict[str, str] = {}

    async def publish(self, user: str, base: BaseIdentity, *, seed: int = 1) -> Manifest:
        """Publish a version for `base`, and let the user's `live` flip to it."""
        manifest = await self._gateway.publish(user, seed=seed, live=False, base=base)
        self._ids[manifest.version_id] = base.id
        owner, registry = manifest.owner, self._gateway.registry
        held = await registry.get_alias(owner, manifest.adapter, "live")
        await registry.move_alias(
            owner, manifest.adapter, "live", version_id=manifest.version_id, expected_version_id=held
        )
        return manifest

    def only(self, base: BaseIdentity) -> Callable[[str], bool]:
        """Return what an engine of this base serves: adapters made for it, and itself."""
        return lambda model: self._ids.get(model, base.id) == base.id


@pytest.fixture
async def next_engine() -> StandInEngine:
    """The engine of the base that users are moved to."""
    return StandInEngine(answer=lambda body: "by the next")


@pytest.fixture
async def next_url(next_engine: StandInEngine) -> AsyncIterator[str]:
    """Where it listens."""
    async with serving(next_engine.app()) as url:
        yield url


@pytest.fixture
def gateway_settings(gateway_settings: GatewaySettings, next_url: str) -> GatewaySettings:
    """A gateway that knows an engine of another base beside its default one."""
    return gateway_settings.model_copy(update={"base_engine_urls": {NEXT_BASE.id: next_url}})


@pytest.fixture
async def bases(gateway: Gateway, client: RegistryClient, stand_in: StandInEngine, next_engine: StandInEngine) -> Bases:
    """Every base is registered, and each engine serves its own alone."""
    for base in (NEXT_BASE, NOBODYS):
        await client.register_base(base, config=BASE_CONFIG)
    bases = Bases(gateway)
    stand_in.serves, next_engine.serves = bases.only(BASE), bases.only(NEXT_BASE)
    stand_in.answer = lambda body: "by the default"
    return bases


async def test_a_flip_moves_its_users_requests_and_nobody_fails_meanwhile(
    http: httpx.AsyncClient, bases: Bases, stand_in: StandInEngine, next_engine: StandInEngine
) -> None:
    users = [f"user-{number}" for number in range(4)]
    for number, user in enumerate(users):
        await bases.publish(user, BASE, seed=number)
    statuses: Counter[int] = Counter()
    by_next: Counter[str] = Counter()
    flipped: set[str] = set()
    over = asyncio.Event()

    async def ask_on_and_on(user: str, *, stream: bool) -> None:
        while not over.is_set():
            was_flipped = user in flipped
            answer = await http.post("/v1/users/" + user + "/query", json={**QUESTION, "stream": stream})
            statuses[answer.status_code] += 1
            if not stream:
                found = answer.json()["answer"]
                by_next[user] += found == "by the next"
                assert found == "by the next" or not was_flipped, "whoever has flipped stays there"

    asking = [asyncio.create_task(ask_on_and_on(user, stream=stream)) for user in users for stream in (False, True)]
    for number, user in enumerate(users):
        await bases.publish(user, NEXT_BASE, seed=100 + number)
        flipped.add(user)
        await until(lambda: by_next[user] > 1)  # noqa: B023 - waited for at once
        assert not any(by_next[each] for each in users[number + 1 :])
    over.set()
    await asyncio.gather(*asking)
    assert set(statuses) == {200}
    assert stand_in.misled == next_engine.misled == []
    assert stand_in.requests
    assert next_engine.requests


async def test_a_rollback_brings_the_user_back_to_the_old_bases_engine(
    http: httpx.AsyncClient, bases: Bases, gateway: Gateway
) -> None:
    await bases.publish("ann", BASE)
    manifest = await bases.publish("ann", NEXT_BASE, seed=2)
    assert (await http.post("/v1/users/ann/query", json=QUESTION)).json()["answer"] == "by the next"
    await gateway.registry.lifecycle.rollback(manifest.owner, manifest.adapter)
    assert (await http.post("/v1/users/ann/query", json=QUESTION)).json()["answer"] == "by the default"


async def test_a_base_that_no_engine_serves_is_a_problem_of_its_own_and_concerns_nobody_else(
    http: httpx.AsyncClient, bases: Bases, gateway: Gateway
) -> None:
    await bases.publish("ann", BASE)
    await bases.publish("bob", NOBODYS)
    for body in (QUESTION, {**QUESTION, "stream": True}):
        refused = await http.post("/v1/users/bob/query", json=body)
        assert (refused.status_code, refused.json()["type"]) == (503, PROBLEM)
        assert refused.json()["detail"].startswith("No engine serves the base model")
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0) as official:
        with pytest.raises(openai.InternalServerError, match="No engine serves the base model") as caught:
            await official.chat.completions.create(model="users/bob", messages=[{"role": "user", "content": "hi"}])
    assert caught.value.code == "base-without-engine"
    assert (await http.post("/v1/users/ann/query", json=QUESTION)).status_code == 200
    assert await calls(http) == {
        ("default", "answered"): 1,
        ("default", "other_base"): 3,
        ("default", "refused"): 0,
        ("default", "failed"): 0,
        **{("other", ending): 0 for ending in ("answered", "other_base", "refused", "failed")},
    }
    await gateway.say("bob", *SAID)
    extracted = await http.post("/v1/users/bob/profile")
    assert (extracted.status_code, extracted.json()["type"]) == (503, PROBLEM)


async def test_hints_and_profiles_go_to_the_engine_of_the_users_base(
    http: httpx.AsyncClient, bases: Bases, gateway: Gateway, stand_in: StandInEngine, next_engine: StandInEngine
) -> None:
    next_engine.answer = lambda body: json.dumps({"answers": ["I love green tea"]})
    await gateway.say("ann", *SAID)
    manifest = await bases.publish("ann", NEXT_BASE)
    (await http.get("/v1/models/users/ann")).raise_for_status()
    await until(lambda: next_engine.hints == [(manifest.version_id, "live")])
    (await http.post("/v1/users/ann/profile")).raise_for_status()
    assert {each["model"] for each in next_engine.requests} >= {manifest.version_id}
    assert stand_in.requests == stand_in.hints == []
    assert (await calls(http))["other", "answered"] == len(next_engine.requests)


async def test_where_a_profile_answers_instead_of_an_adapter_the_default_engine_does(
    http: httpx.AsyncClient, bases: Bases, gateway: Gateway, stand_in: StandInEngine, next_engine: StandInEngine
) -> None:
    next_engine.answer = lambda body: json.dumps({"answers": ["I love green tea"]})
    await gateway.say("ann", *SAID)
    await bases.publish("ann", NEXT_BASE)
    (await http.post("/v1/users/ann/profile")).raise_for_status()
    await gateway.registry.lifecycle.erase_owner(Owner(tenant="default", user="ann"), why="a test", force=True)
    next_engine.requests.clear()
    answer = await http.post("/v1/users/ann/query", json={**QUESTION, "fallback": "profile"})
    assert (answer.json()["answer"], answer.json()["fallback"]) == ("by the default", "profile")
    assert (stand_in.requests[-1]["model"], next_engine.requests) == ("base", [])


async def test_an_engine_that_is_away_fails_the_users_of_its_base_alone_and_is_named(
    http: httpx.AsyncClient, bases: Bases, gateway_settings: GatewaySettings, next_engine: StandInEngine
) -> None:
    await bases.publish("ann", BASE)
    await bases.publish("bob", NEXT_BASE)
    next_engine.refuse_with = (500, "boom")
    assert (await http.post("/v1/users/ann/query", json=QUESTION)).status_code == 200
    failed = await http.post("/v1/users/bob/query", json=QUESTION)
    assert (failed.status_code, failed.json()["type"]) == (503, "urn:lorry:problem:engine-unavailable")
    assert (await calls(http))["other", "failed"] == 1
    assert (await http.get("/readyz")).status_code == 200
    next_engine.is_down = True
    ready = await http.get("/readyz")
    assert (ready.status_code, ready.json()["detail"]) == (503, f"the engine of base {NEXT_BASE.id}: no answer")


async def calls(http: httpx.AsyncClient) -> dict[tuple[str, str], float]:
    """Return how many calls of engines ended how, as Prometheus is told."""
    text = (await http.get("/metrics")).text
    found: list[Any] = re.findall(
        r'^lorry_gateway_engine_calls_total\{ending="(\w+)",engine="(\w+)"\} (\S+)$', text, re.MULTILINE
    )
    return {(engine, ending): float(count) for ending, engine, count in found}
