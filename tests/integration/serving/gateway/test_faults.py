"""What happens to callers when a part behind the gateway fails."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import httpx
import pytest
from sqlalchemy import make_url

from kit.database import Database
from kit.errors import BeingErased
from kit.settings import DatabaseSettings
from lorry.client import AsyncClient
from serving.erasure.desk import ErasureDesk
from serving.gateway.app import create_app
from serving.gateway.erasing import Sign
from serving.gateway.settings import GatewaySettings
from tests.support.databases import rename
from tests.support.gateway_server import Gateway, StandInEngine
from tests.support.ports import free_socket, reserved_port
from tests.support.registry_server import serving
from tests.support.waiting import until

REMEMBERS = {"gateway_stale_seconds": 300.0}  # what was answered before, while nothing answers
QUESTION = {"question": "?"}


def code(answer: httpx.Response) -> str:
    return str(answer.json()["type"]).removeprefix("urn:lorry:problem:")


class Wire:
    """A TCP connection to a service, which a test cuts or freezes and mends again."""

    def __init__(self, url: str) -> None:
        """Lead to a service at a URL, or at a Unix socket's path."""
        self._target = url
        self._writers: set[asyncio.StreamWriter] = set()
        self.is_cut = False
        self.flows = asyncio.Event()
        self.flows.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_cut:
            writer.close()
            return
        there, back = await self._open()
        self._writers |= {writer, back}
        try:
            await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
        except OSError:
            pass
        finally:
            for each in (writer, back):
                each.close()
            self._writers -= {writer, back}

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._target.startswith("/"):
            return await asyncio.open_unix_connection(self._target)
        host, port = self._target.removeprefix("http://").rsplit(":", 1)
        return await asyncio.open_connection(host, int(port))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self.flows.wait()
            writer.write(data)
            await writer.drain()
        writer.close()

    def cut(self) -> None:
        """Break every connection off, and refuse new ones."""
        self.is_cut = True
        for writer in list(self._writers):
            writer.transport.abort()

    def mend(self) -> None:
        """Take connections again."""
        self.is_cut = False

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Listen, and yield the URL."""
        sock = free_socket()
        server = await asyncio.start_server(self._serve, sock=sock)
        try:
            yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            self.flows.set()
            self.cut()
            server.close()


async def test_a_slow_engine_is_504_and_its_request_is_ended(
    gateway: Gateway, gateway_settings: GatewaySettings, stand_in: StandInEngine
) -> None:
    await gateway.publish("ann")
    stand_in.seconds_between_events = 30
    settings = gateway_settings.model_copy(update={"engine_timeout_seconds": 2.0})
    async with serving(create_app(settings)) as url, gateway.caller() as http:
        answer = await http.post(f"{url}/v1/users/ann/query", json=QUESTION)
    assert (answer.status_code, code(answer)) == (504, "engine-timeout")
    await until(lambda: not stand_in.running)


async def test_an_engine_that_falls_silent_in_a_stream_is_told_within_it_and_its_request_is_ended(
    gateway: Gateway, gateway_settings: GatewaySettings, stand_in: StandInEngine
) -> None:
    await gateway.publish("ann")
    wire = Wire(gateway_settings.engine_url)
    async with wire.listening() as engine_url:
        settings = gateway_settings.model_copy(update={"engine_url": engine_url, "engine_timeout_seconds": 4.0})
        async with serving(create_app(settings)) as url, gateway.caller() as http:
            stand_in.seconds_between_events, stand_in.events = 0.05, 1000
            async with http.stream("POST", f"{url}/v1/users/ann/query", json={**QUESTION, "stream": True}) as stream:
                lines = stream.aiter_lines()
                await anext(lines)
                wire.flows.clear()
                rest = [line async for line in lines]
            assert any("event: error" in line for line in rest)
            assert any("engine-timeout" in line for line in rest)
            wire.flows.set()
    await until(lambda: not stand_in.running)


async def test_an_engine_that_restarts_is_503_while_it_is_down_and_serves_when_it_is_back(
    gateway: Gateway, gateway_settings: GatewaySettings, stand_in: StandInEngine
) -> None:
    await gateway.publish("ann")
    wire = Wire(gateway_settings.engine_url)
    async with wire.listening() as engine_url:
        settings = gateway_settings.model_copy(update={"engine_url": engine_url})
        async with serving(create_app(settings)) as url, gateway.caller() as http:
            stand_in.seconds_between_events, stand_in.events = 0.05, 1000
            async with http.stream("POST", f"{url}/v1/users/ann/query", json={**QUESTION, "stream": True}) as stream:
                lines = stream.aiter_lines()
                await anext(lines)
                wire.cut()
                rest = [line async for line in lines]
            assert any("event: error" in line for line in rest), "the break is told within the stream"
            down = await http.post(f"{url}/v1/users/ann/query", json=QUESTION)
            assert (down.status_code, code(down), down.headers["retry-after"]) == (503, "engine-unavailable", "1")
            assert (await http.get(f"{url}/readyz")).status_code == 503
            assert (await http.get(f"{url}/v1/users/ann/transcripts")).status_code == 200, "all else works"
            wire.mend()
            stand_in.seconds_between_events = 0
            assert (await http.post(f"{url}/v1/users/ann/query", json=QUESTION)).status_code == 200
    await until(lambda: not stand_in.running)


@pytest.mark.parametrize("how", ["cut", "frozen"])
async def test_without_the_registry_who_was_served_before_is_served_on_and_others_are_503(
    gateway: Gateway, gateway_settings: GatewaySettings, how: str
) -> None:
    await gateway.publish("ann")
    await gateway.publish("bob", seed=2)
    wire = Wire(gateway_settings.registry_url)
    async with wire.listening() as registry_url:
        settings = gateway_settings.model_copy(update={"registry_url": registry_url, **REMEMBERS})
        async with serving(create_app(settings)) as url, gateway.caller() as http:
            first = await http.post(f"{url}/v1/users/ann/query", json=QUESTION)
            assert first.status_code == 200
            if how == "cut":
                wire.cut()
            else:
                wire.flows.clear()
            patience = "20" if how == "cut" else "2"
            unknown = await http.post(
                f"{url}/v1/users/bob/query", json=QUESTION, headers={"x-lorry-deadline": patience}
            )
            assert unknown.status_code in ({503} if how == "cut" else {504})
            for _ in range(5):
                answer = await http.post(f"{url}/v1/users/ann/query", json=QUESTION, headers={"x-lorry-deadline": "20"})
                assert (answer.status_code, answer.json()) == (200, first.json())
            if how == "cut":
                assert code(unknown) == "registry-unavailable"
                assert (await http.get(f"{url}/v1/adapters")).status_code == 503
                assert (await http.get(f"{url}/readyz")).status_code == 503
            wire.mend()
            wire.flows.set()
            await gateway.publish("ann", seed=3)

            async def follows() -> bool:
                answer = await http.post(f"{url}/v1/users/ann/query", json=QUESTION)
                return answer.status_code == 200 and answer.json()["adapter"]["version"] == 2

            await until(follows)


async def test_a_registry_that_says_no_is_believed_although_it_said_yes_before(
    gateway: Gateway, gateway_settings: GatewaySettings
) -> None:
    await gateway.publish("ann")
    settings = gateway_settings.model_copy(update=REMEMBERS)
    async with serving(create_app(settings)) as url, gateway.caller() as http:
        assert (await http.post(f"{url}/v1/users/ann/query", json=QUESTION)).status_code == 200
        why = {"why": "ticket 7"}
        await http.post(f"{url}/v1/adapters/ann/profile/suspend", json=why)
        for _ in range(2):
            assert (await http.post(f"{url}/v1/users/ann/query", json=QUESTION)).status_code == 409


async def test_without_the_database_known_keys_ask_on_and_what_needs_it_is_503(
    gateway: Gateway, gateway_settings: GatewaySettings
) -> None:
    await gateway.publish("ann")
    settings = gateway_settings.model_copy(update=REMEMBERS)
    async with serving(create_app(settings)) as url, gateway.caller() as http:
        assert (await http.post(f"{url}/v1/users/ann/query", json=QUESTION)).status_code == 200
        async with without_connections(gateway_settings):
            stranger = gateway.caller("lorry_" + "x" * 43)
            async with stranger:
                refused = await stranger.get(f"{url}/v1/models")
            assert (refused.status_code, code(refused)) == (503, "database-unavailable")
            for _ in range(3):
                assert (await http.post(f"{url}/v1/users/ann/query", json=QUESTION)).status_code == 200
            for method, path in (
                ("GET", "/v1/users/ann/profile"), ("GET", "/v1/users/ann/transcripts"), ("GET", "/v1/usage"),
            ):  # fmt: skip
                answer = await http.request(method, url + path)
                assert (answer.status_code, code(answer)) == (503, "database-unavailable"), path
                assert answer.headers["retry-after"]
            async with AsyncClient(url=url, key=gateway.key) as client:
                assert (await client.query("ann", QUESTION["question"])).adapter.version == 1
            keyed = {"idempotency-key": "k"}
            assert (await http.post(f"{url}/v1/users/ann/query", json=QUESTION, headers=keyed)).status_code == 503
            assert (await http.get(f"{url}/healthz")).status_code == 200
            assert (await http.get(f"{url}/readyz")).status_code == 503

        async def sees_it_again() -> bool:
            return (await http.get(f"{url}/v1/users/ann/transcripts")).status_code == 200

        await until(sees_it_again)


async def test_while_the_database_hangs_known_keys_ask_on_and_what_needs_it_is_503(
    gateway: Gateway, gateway_settings: GatewaySettings
) -> None:
    """Whoever comes first waits a few seconds for it, those after them not at all."""
    await gateway.publish("ann")
    database_url = make_url(gateway_settings.database_url)
    (socket,) = Path(str(database_url.query["host"])).glob(".s.PGSQL.*[0-9]")
    wire = Wire(str(socket))
    async with wire.listening() as url_of_wire:
        behind = database_url.set(host="127.0.0.1", port=int(url_of_wire.rsplit(":", 1)[1]), query={})
        settings = gateway_settings.model_copy(
            update={
                "database_url": behind.render_as_string(hide_password=False),
                "database_timeout_seconds": 8.0,
                "gateway_cache_seconds": 0.1,
                **REMEMBERS,
            }
        )
        async with serving(create_app(settings)) as url, gateway.caller() as http:
            asked = f"{url}/v1/users/ann/query"
            assert (await http.post(asked, json=QUESTION)).status_code == 200
            wire.flows.clear()
            await asyncio.sleep(0.2)  # what is remembered is old
            async with asyncio.timeout(60):
                assert (await http.post(asked, json=QUESTION)).status_code == 200
            for _ in range(3):
                async with asyncio.timeout(7):
                    assert (await http.post(asked, json=QUESTION)).status_code == 200
            async with asyncio.timeout(60):
                answer = await http.get(f"{url}/v1/users/ann/transcripts")
            assert (answer.status_code, code(answer)) == (503, "database-unavailable")
            assert answer.headers["retry-after"]
            assert (await http.get(f"{url}/healthz")).status_code == 200
            wire.flows.set()

            async def sees_it_again() -> bool:
                return (await http.get(f"{url}/v1/users/ann/transcripts")).status_code == 200

            await until(sees_it_again)


async def test_without_the_database_who_is_remembered_to_be_erased_is_refused(
    database: Database, database_settings: DatabaseSettings
) -> None:
    desk = ErasureDesk(database)
    await desk.ask("default", "ann", asked_by="test", known=True)
    sign = Sign(desk, cache_seconds=0, stale_seconds=60)
    await sign.require_not_erasing("default", "bob")
    async with without_connections(database_settings):
        with pytest.raises(BeingErased):
            await sign.require_not_erasing("default", "ann", reads_database=True)
        await sign.require_not_erasing("default", "bob", reads_database=True)


@asynccontextmanager
async def without_connections(settings: DatabaseSettings) -> AsyncIterator[None]:
    """Take a test's database away while the block runs: who is connected is cut off, and it cannot be found."""
    url = make_url(settings.database_url)
    elsewhere = url.set(drivername="postgresql", database="postgres").render_as_string(hide_password=False)
    connection = await asyncpg.connect(elsewhere)
    try:
        await rename(connection, str(url.database), "gone")
        yield
    finally:
        await rename(connection, "gone", str(url.database))
        await connection.close()


async def test_a_client_that_leaves_a_query_stream_closes_the_engines(
    gateway: Gateway, http: httpx.AsyncClient, stand_in: StandInEngine
) -> None:
    await gateway.publish("ann")
    stand_in.seconds_between_events, stand_in.events = 0.05, 1000
    async with http.stream("POST", "/v1/users/ann/query", json={**QUESTION, "stream": True}) as stream:
        lines = stream.aiter_lines()
        await anext(lines)
        assert stand_in.running == 1
    await until(lambda: not stand_in.running)
    assert stand_in.closed_early == 1


async def test_a_gateway_told_to_stop_says_so_finishes_what_runs_and_ends(
    gateway: Gateway, gateway_settings: GatewaySettings, stand_in: StandInEngine
) -> None:
    await gateway.publish("ann")
    stand_in.seconds_between_events, stand_in.events = 0.1, 600
    settings = gateway_settings.model_copy(update={"gateway_notice_seconds": 15})
    async with gateway_process(settings) as (process, url), gateway.caller() as http:
        stream_words = asyncio.create_task(http.post(f"{url}/v1/users/ann/query", json={**QUESTION, "stream": True}))
        await until(lambda: bool(stand_in.running))
        process.send_signal(signal.SIGTERM)
        told = time.monotonic()

        async def drains() -> bool:
            nonlocal ready
            ready = await http.get(f"{url}/readyz")
            return ready.status_code == 503

        ready = await http.get(f"{url}/readyz")
        await until(drains)
        assert code(ready) == "gateway-draining"
        assert ready.headers["connection"] == "close"
        assert (await http.get(f"{url}/v1/models")).status_code == 200, "who comes meanwhile is served"
        with pytest.raises(httpx.TransportError):
            await asyncio.wait_for(ask_on(http, f"{url}/healthz"), 60)
        assert time.monotonic() - told > 14.5, "it listens for as long as it gives notice"
        assert not stream_words.done(), "who runs is waited for when nobody comes any more"
        stand_in.seconds_between_events = 0
        whole = await stream_words
        assert whole.text.count("event: delta") == 600
        assert "event: done" in whole.text
        assert await asyncio.wait_for(process.wait(), 60) == 0


async def ask_on(http: httpx.AsyncClient, url: str) -> None:
    """Ask until nobody answers any more."""
    while True:
        await http.get(url)
        await asyncio.sleep(0.05)


async def test_a_drain_is_bounded(gateway: Gateway, gateway_settings: GatewaySettings, stand_in: StandInEngine) -> None:
    await gateway.publish("ann")
    stand_in.seconds_between_events, stand_in.events = 0.1, 10_000
    settings = gateway_settings.model_copy(update={"gateway_drain_seconds": 1})
    async with gateway_process(settings) as (process, url), gateway.caller() as http:
        running = asyncio.create_task(http.post(f"{url}/v1/users/ann/query", json={**QUESTION, "stream": True}))
        await until(lambda: bool(stand_in.running))
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), 60)
        await asyncio.gather(running, return_exceptions=True)
    await until(lambda: not stand_in.running)


@asynccontextmanager
async def gateway_process(settings: GatewaySettings) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A gateway in a process of its own."""
    with reserved_port() as port:
        given = {name: getattr(settings, name) for name in settings.model_fields_set}
        secrets = {
            name: value.get_secret_value() for name, value in given.items() if hasattr(value, "get_secret_value")
        }
        values = {**given, **secrets, "gateway_port": port}
        environment = {f"LORRY_{name.upper()}": str(value) for name, value in values.items() if value is not None}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "serving.gateway", env={**os.environ, **environment}, stderr=asyncio.subprocess.PIPE
        )
        url = f"http://127.0.0.1:{port}"
        try:
            async with httpx.AsyncClient(timeout=60, trust_env=False) as http:

                async def is_up() -> bool:
                    try:
                        return (await http.get(f"{url}/healthz")).status_code == 200
                    except httpx.TransportError:
                        return False

                await until(is_up, within_seconds=180)
            yield process, url
        finally:
            if process.returncode is None:
                process.kill()
            _, log = await process.communicate()
            for line in log.decode().splitlines():
                json.loads(line)  # every line of the log is a JSON object
