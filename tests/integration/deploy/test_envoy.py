"""deploy/envoy before engines that answer at once: who is asked, who is asked instead, and who is not.

What the chart makes of it for two bases stands before engines of either.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from lorry.local.part import start_part
from tests.support.chart import pods
from tests.support.envoy import EnvoyPorts, configuration, healthy_hosts, placed, prepare_envoy
from tests.support.helm import render
from tests.support.ports import free_port_block
from tests.support.registry_server import serving

TOKEN = "engine-token-for-tests"
KEYS = tuple(f"user-{number}" for number in range(40))


@dataclass
class StandIn:
    """Answers as an engine does, in microseconds; a stand-in because `tests/fleet` has the real ones."""

    name: str
    ready: bool = True
    draining: bool = False
    hold: asyncio.Event | None = None
    asked: list[str] = field(default_factory=list)
    bodies: list[int] = field(default_factory=list)

    def app(self) -> FastAPI:
        app = FastAPI()
        app.add_api_route("/lorry/ready", self.is_ready, methods=["GET"], response_model=None)
        app.add_api_route("/v1/chat/completions", self.chat, methods=["POST"], response_model=None)
        return app

    async def is_ready(self, request: Request) -> JSONResponse:
        knows_token = request.headers.get("authorization") == f"Bearer {TOKEN}"
        return JSONResponse({}, status_code=200 if self.ready and knows_token else 503)

    async def chat(self, request: Request) -> JSONResponse:
        self.asked.append(request.headers.get("x-lorry-adapter", ""))
        self.bodies.append(len(await request.body()))
        if self.draining:
            return JSONResponse({}, status_code=503, headers={"x-lorry-ask-another": "true", "retry-after": "1"})
        if self.hold is not None:
            await self.hold.wait()
        return JSONResponse({"by": self.name})


@dataclass
class Row:
    """Three engines behind Envoy, and a client."""

    engines: list[StandIn]
    ports: EnvoyPorts
    http: httpx.AsyncClient

    async def by(self, key: str, body: bytes = b"{}") -> str:
        answer = await self.http.post("/v1/chat/completions", content=body, headers={"x-lorry-adapter": key})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["by"])

    @contextmanager
    def holding(self) -> Iterator[asyncio.Event]:
        """Have every engine hold what it is asked until the event is set, at the latest when the block ends.

        A request that were held for ever would keep its engine from ending, and so a test that fails from failing.
        """
        hold = asyncio.Event()
        for engine in self.engines:
            engine.hold = hold
        try:
            yield hold
        finally:
            hold.set()

    async def until_healthy(self, count: int) -> None:
        async with asyncio.timeout(60):
            while await healthy_hosts(self.ports) != count:  # noqa: ASYNC110 - Envoy tells nobody
                await asyncio.sleep(0.05)


@asynccontextmanager
async def open_row(folder: Path, *, token: str = TOKEN, drain_seconds: int = 600) -> AsyncIterator[Row]:
    ports = EnvoyPorts.from_base(free_port_block(3))
    engines = [StandIn(name=f"engine-{number}") for number in range(3)]
    async with AsyncExitStack() as exits:
        urls = [await exits.enter_async_context(serving(engine.app())) for engine in engines]
        places = {engine.name: int(url.rsplit(":", 1)[1]) for engine, url in zip(engines, urls, strict=True)}
        document = configuration(places, ports=ports)
        prepared = prepare_envoy(document, ports=ports, folder=folder, token=token, drain_seconds=drain_seconds)
        envoy = await start_part(prepared)
        exits.push_async_callback(envoy.stop)
        await envoy.wait_until_healthy()
        http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{ports.engines}", trust_env=False, timeout=30)
        await exits.enter_async_context(http)
        yield Row(engines=engines, ports=ports, http=http)


@pytest.fixture
async def row(tmp_path: Path) -> AsyncIterator[Row]:
    async with open_row(tmp_path) as row:
        await row.until_healthy(3)
        yield row


async def test_a_keys_requests_come_to_one_engine_and_keys_are_spread(row: Row) -> None:
    first = {key: await row.by(key) for key in KEYS}
    assert {key: await row.by(key) for key in KEYS} == first
    shares = [list(first.values()).count(engine.name) for engine in row.engines]
    assert min(shares) >= len(KEYS) / 3 / 3, shares


async def test_a_hot_key_spills_over_and_nobody_has_more_than_the_bound(row: Row) -> None:
    at_once, asking = 30, []
    with row.holding():
        for number in range(at_once):  # Envoy counts what has reached an engine, not what is on its way there
            asking.append(asyncio.create_task(row.by("hot")))
            while sum(len(engine.asked) for engine in row.engines) <= number:
                assert not asking[-1].done(), asking[-1]
                await asyncio.sleep(0.001)
        shares = [len(engine.asked) for engine in row.engines]
    await asyncio.gather(*asking)
    # It reckons with the newcomer, and rounds up; within that bound two of three can hold everything.
    assert max(shares) <= math.ceil(1.5 * at_once / 3) + 1, shares
    assert sorted(shares)[1] >= at_once - max(shares) - 1, shares


async def test_what_a_drained_engine_refuses_another_one_answers_at_once(row: Row) -> None:
    """Before any health check has seen it: that is what the header is for."""
    homes = {key: await row.by(key) for key in KEYS}
    drained = row.engines[0]
    drained.draining = True
    moved = {key: await row.by(key) for key in KEYS}
    assert drained.name not in moved.values()
    assert all(moved[key] == home for key, home in homes.items() if home != drained.name)


async def test_of_a_crowd_that_a_drained_engine_refuses_everybody_is_answered_by_the_others(row: Row) -> None:
    """A drain refuses all who wait at once. Left alone, Envoy lets three of them ask another and fails the rest."""
    homes = {key: await row.by(key) for key in KEYS}
    drained = row.engines[0]
    crowd = [key for key, home in homes.items() if home == drained.name] * 4
    before = len(drained.asked)
    drained.draining = True
    answered = await asyncio.gather(*(row.by(key) for key in crowd))
    assert drained.name not in answered
    assert len(drained.asked) - before > 3


async def test_an_engine_that_is_not_ready_is_asked_nothing_and_gets_its_keys_back(row: Row) -> None:
    homes = {key: await row.by(key) for key in KEYS}
    away = row.engines[1]
    away.ready = False
    await row.until_healthy(2)
    asked = len(away.asked)
    assert away.name not in {await row.by(key) for key in KEYS}
    assert len(away.asked) == asked
    away.ready = True
    await row.until_healthy(3)
    assert {key: await row.by(key) for key in KEYS} == homes


async def test_other_refusals_are_the_engines_own_and_not_tried_elsewhere(row: Row) -> None:
    answer = await row.http.post("/v1/nowhere", headers={"x-lorry-adapter": "a"})
    assert answer.status_code == 404
    assert sum(len(engine.asked) for engine in row.engines) == 0


async def test_a_large_body_is_sent_again_whole(row: Row) -> None:
    body = b" " * (4 << 20)
    homes = {key: await row.by(key) for key in KEYS}
    key = next(key for key, home in homes.items() if home == row.engines[2].name)
    row.engines[2].draining = True
    assert await row.by(key, body) != row.engines[2].name
    assert sorted(each for engine in row.engines for each in engine.bodies)[-2:] == [len(body), len(body)]


async def test_without_the_engines_token_no_engine_counts_as_ready(tmp_path: Path) -> None:
    async with open_row(tmp_path, token="another-token") as row:
        await row.until_healthy(0)
        answer = await row.http.post("/v1/chat/completions", content=b"{}")
        assert answer.status_code == 503


async def test_administration_is_reached_from_this_machine_only_and_measures_from_everywhere(row: Row) -> None:
    async with httpx.AsyncClient(timeout=60, base_url=f"http://127.0.0.1:{row.ports.stats}", trust_env=False) as client:
        assert "envoy_cluster_membership_healthy" in (await client.get("/stats/prometheus")).text
        assert (await client.get("/ready")).status_code == 200
        for path in ("/quitquitquit", "/config_dump", "/"):
            assert (await client.post(path)).status_code == 404


async def test_what_runs_when_the_charts_envoy_is_told_to_stop_is_answered_and_nobody_else_comes_in(
    tmp_path: Path,
) -> None:
    """The command of its preStop hook, at this machine's port: callers are told to close before the door is shut."""
    (container,) = pods(render({}))["lorry-envoy"]["containers"]
    *shell, script = container["lifecycle"]["preStop"]["exec"]["command"]
    async with open_row(tmp_path, drain_seconds=3) as row:
        await row.until_healthy(3)
        here = re.sub(r"sleep \d+$", "cat <&3", script.replace("/9901;", f"/{row.ports.admin};"))
        with row.holding():
            running = asyncio.create_task(row.by("ann"))
            while not any(engine.asked for engine in row.engines):
                assert not running.done(), running
                await asyncio.sleep(0.01)
            stop = await asyncio.create_subprocess_exec(*shell, here, stdout=PIPE)
            async with asyncio.timeout(30):
                said, _ = await stop.communicate()
            assert said.startswith(b"HTTP/1.1 200"), said
            for engine in row.engines:
                engine.hold = None
            statuses, told = [], []

            async def ask() -> httpx.Response:
                return await row.http.post("/v1/chat/completions", content=b"{}", headers={"x-lorry-adapter": "bob"})

            for _ in range(600):
                try:
                    answer = await ask()
                except httpx.ConnectError:
                    break
                except (httpx.ReadError, httpx.RemoteProtocolError):  # it was in the queue of the door that was shut
                    with pytest.raises(httpx.ConnectError):
                        await ask()
                    break
                statuses.append(answer.status_code)
                told.append(answer.headers.get("connection"))
                await asyncio.sleep(0.05)
            assert 0 < len(statuses) < 600, "the door is shut in the end"
            assert set(statuses) == {200}
            assert "close" in told
        assert await running


async def test_the_charts_envoy_asks_the_engines_of_the_base_that_is_meant(tmp_path: Path) -> None:
    found = {
        (each["kind"], each["metadata"]["name"]): each for each in render({"otherEngines": {"new": {"path": "b"}}})
    }
    (container,) = found["Deployment", "lorry-gateway"]["spec"]["template"]["spec"]["containers"]
    told: dict[str, str] = {each["name"]: each.get("value", "") for each in container["env"]}
    urls = {"engines": told["LORRY_ENGINE_URL"], "engines-new": json.loads(told["LORRY_BASE_ENGINE_URLS"])["b"]}
    for url in urls.values():
        assert ("Service", httpx.URL(url).host.split(".")[0]) in found
    document: dict[str, Any] = yaml.safe_load(found["ConfigMap", "lorry-envoy"]["data"]["envoy.yaml"])
    ports = EnvoyPorts.from_base(free_port_block(3))
    engines = {cluster: [StandIn(name=f"{cluster}-{number}") for number in range(2)] for cluster in urls}
    async with AsyncExitStack() as exits:
        places: dict[str, dict[str, int]] = {}
        for cluster, members in engines.items():
            listening = [await exits.enter_async_context(serving(engine.app())) for engine in members]
            numbers = [int(url.rsplit(":", 1)[1]) for url in listening]
            places[cluster] = dict(zip((engine.name for engine in members), numbers, strict=True))
        part = prepare_envoy(placed(document, places, ports=ports), ports=ports, folder=tmp_path, token=TOKEN)
        envoy = await start_part(part)
        exits.push_async_callback(envoy.stop)
        await envoy.wait_until_healthy()
        for cluster in urls:
            async with asyncio.timeout(60):
                while await healthy_hosts(ports, cluster=cluster) != 2:  # noqa: ASYNC110 - Envoy tells nobody
                    await asyncio.sleep(0.05)
        http = await exits.enter_async_context(httpx.AsyncClient(trust_env=False, timeout=30))
        for cluster, url in urls.items():
            headers = {"host": httpx.Request("POST", url).headers["host"]}
            address = f"http://127.0.0.1:{ports.engines}/v1/chat/completions"
            answers = [
                await http.post(address, content=b"{}", headers={**headers, "x-lorry-adapter": key}) for key in KEYS
            ]
            assert {answer.json()["by"] for answer in answers} == {engine.name for engine in engines[cluster]}
