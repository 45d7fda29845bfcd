"""Several engines behind Envoy, on one machine: the production's processes with PostgreSQL, SeaweedFS and a registry.

async with open_fleet(directory, base_directory=base) as fleet:
    ada = await fleet.publish(adapter_directory, user="ada")
    answer = await fleet.ask(ada.version_id, key="ada")        # through Envoy
    async with fleet.counted() as answered:                     # which engine admitted how many requests
        ...
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_urlsafe
from typing import Any

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from lorry.home import Home
from lorry.local.part import Part, RunningPart, start_part
from lorry.local.plan import Plan
from lorry.local.stack import Stack, open_stack
from lorry.settings import LorrySettings
from registry.client import RegistryClient, draft_from_directory
from registry.manifest import BaseIdentity, Manifest, Owner
from tests.support.envoy import EnvoyPorts, Policy, configuration, healthy_hosts, prepare_envoy
from tests.support.ports import free_port_block
from training.base_models import DEFAULT_BASE

PROMPT = "My name is"
ENGINE = {
    "LORRY_MAX_LORAS": "4",
    "LORRY_MAX_CPU_LORAS": "16",
    "LORRY_MAX_MODEL_LEN": "512",
    "LORRY_KV_CACHE_GIB": "1",
    "LORRY_HEARTBEAT_SECONDS": "0.5",
}
_HOME_PORTS = 22
_START_SECONDS = 600.0
_SETTLE_SECONDS = 60.0


@dataclass
class Member:
    """One engine of the fleet, which can be killed, stopped and started again under its name."""

    name: str
    part: Part
    token: str
    running: RunningPart | None = None

    @property
    def url(self) -> str:
        """Where it listens, past Envoy."""
        return self.part.address

    @property
    def processes(self) -> list[psutil.Process]:
        """Its processes now."""
        assert self.running is not None
        leader = psutil.Process(self.running.pid)
        return [leader, *leader.children(recursive=True)]

    async def start(self) -> None:
        """Start it; returns once it serves adapters."""
        self.running = await start_part(self.part)
        await self.running.wait_until_healthy()

    async def kill(self) -> None:
        """Kill it with −9, its children as well; returns once none of them is left."""
        assert self.running is not None
        family = self.processes
        os.killpg(self.running.pid, signal.SIGKILL)
        await self.running.wait()
        await asyncio.to_thread(psutil.wait_procs, family, 30)

    @asynccontextmanager
    async def standing_still(self) -> AsyncIterator[None]:
        """Let none of its processes get on while the block runs: it takes connections and answers nobody."""
        assert self.running is not None
        os.killpg(self.running.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self.running.pid, signal.SIGCONT)

    async def drain(self, seconds: int) -> int:
        """Do what a pod does before it is stopped; returns the exit code."""
        command = (sys.executable, "-m", "lorry.container", "drain", str(seconds))
        environment = {**os.environ, **self.part.environment, "LORRY_ROLE": "engine"}
        process = await asyncio.create_subprocess_exec(*command, env=environment)
        return await process.wait()

    async def stop(self) -> None:
        """Ask it to stop and wait until it has."""
        if self.running is not None:
            await self.running.stop()
            self.running = None

    async def get(self, path: str) -> httpx.Response:
        """Ask one of its own routes, past Envoy."""
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            return await client.get(f"{self.url}{path}", headers={"authorization": f"Bearer {self.token}"})

    async def ask(self, version_id: str, **headers: str) -> httpx.Response:
        """Ask it for a completion, past Envoy."""
        async with client_of(self.url, self.token) as client:
            return await client.post("/v1/completions", json=_completion(version_id, max_tokens=4), headers=headers)

    async def counters(self, name: str) -> dict[frozenset[tuple[str, str]], float]:
        """Return the series of one metric."""
        families = text_string_to_metric_families((await self.get("/metrics")).text)
        samples = (sample for family in families for sample in family.samples)
        return {frozenset(each.labels.items()): each.value for each in samples if each.name == name}

    async def admitted(self) -> float:
        """Return how many requests for adapters it admitted since it started."""
        return sum((await self.counters("lorry_adapter_requests_total")).values())

    async def holds(self, version_id: str) -> bool:
        """Say whether any of its tiers holds a version."""
        return (await self.get(f"/lorry/adapters/{version_id}")).status_code == 200


@dataclass
class Fleet:
    """The engines, Envoy before them, and the registry that they share."""

    plan: Plan
    stack: Stack
    base: BaseIdentity
    registry: RegistryClient
    members: list[Member]
    ports: EnvoyPorts
    envoy: RunningPart
    http: httpx.AsyncClient

    async def publish(self, directory: Path, *, user: str) -> Manifest:
        """Publish an adapter for a user of the default tenant."""
        draft = draft_from_directory(directory, owner=Owner(tenant="default", user=user), base=self.base)
        return await self.registry.publish(directory, draft=draft)

    async def ask(self, version_id: str, *, key: str, max_tokens: int = 4, **more: Any) -> httpx.Response:
        """Ask for a completion through Envoy; `key` is what the gateway derives from a user's name."""
        body = _completion(version_id, max_tokens=max_tokens, **more)
        return await self.http.post("/v1/completions", json=body, headers={"x-lorry-adapter": key})

    async def text(self, version_id: str, *, key: str, **more: Any) -> str:
        """Return an answer's text; every other end is a failure."""
        answer = await self.ask(version_id, key=key, **more)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["choices"][0]["text"])

    @asynccontextmanager
    async def counted(self) -> AsyncIterator[dict[str, float]]:
        """Yield what is filled, when the block ends, with the requests that each engine admitted in it."""
        before = {member.name: await member.admitted() for member in self.members}
        found: dict[str, float] = {}
        yield found
        found |= {member.name: await member.admitted() - before[member.name] for member in self.members}

    async def home_of(self, version_id: str, *, key: str) -> Member:
        """Return the engine to which Envoy sends a key's requests when nobody is busy."""
        async with self.counted() as answered:
            await self.text(version_id, key=key, max_tokens=1)
        return next(member for member in self.members if answered[member.name])

    async def until_healthy(self, count: int) -> None:
        """Wait until Envoy sends requests to so many engines."""
        async with asyncio.timeout(_SETTLE_SECONDS):
            while await healthy_hosts(self.ports) != count:  # noqa: ASYNC110 - Envoy tells nobody
                await asyncio.sleep(0.1)


@asynccontextmanager
async def open_fleet(
    directory: Path, *, base_directory: Path, engine: Mapping[str, str] | None = None, engines: int = 2
) -> AsyncIterator[Fleet]:
    """Run `engines` engines and everything that they need, from an empty home, and stop it all when the block ends.

    Args:
        directory: the home; short, because a socket's address has to fit.
        base_directory: the base model.
        engine: more of every engine's environment.
        engines: how many.
    """
    first = free_port_block(_HOME_PORTS + engines + 3)
    ports = EnvoyPorts.from_base(first + _HOME_PORTS + engines)
    settings = LorrySettings(
        home=directory,
        port_base=first,
        gateway_port=first + _HOME_PORTS - 1,
        threads=1,
        base_model=str(base_directory),
        engine_url=f"http://127.0.0.1:{ports.engines}",
        engine_token=SecretStr(token_urlsafe(32)),
    )
    plan = Plan(settings=settings, home=Home.open(directory))
    async with AsyncExitStack() as exits:
        stack = await exits.enter_async_context(
            open_stack(plan, base_directory=lambda: base_directory, on_state=lambda *_: None, on_wait=print)
        )
        await stack.ensure("registry")
        registry = RegistryClient(url=plan.registry_url, token=plan.registry_token, actor="fleet")
        await exits.enter_async_context(registry)
        base = BaseIdentity.of_directory(base_directory, id=DEFAULT_BASE)
        await registry.register_base(base, config=(base_directory / "config.json").read_bytes())
        members = [
            _member(plan, base_directory, number, port=first + _HOME_PORTS + number, more=engine or {})
            for number in range(engines)
        ]
        for member in members:
            exits.push_async_callback(member.stop)
        await asyncio.gather(*(member.start() for member in members))
        envoy = await exits.enter_async_context(running_envoy(members, plan=plan, ports=ports))
        http = await exits.enter_async_context(client_of(plan.engine_url, plan.engine_token))
        fleet = Fleet(
            plan=plan, stack=stack, base=base, registry=registry, members=members, ports=ports, envoy=envoy, http=http
        )
        await fleet.until_healthy(engines)
        yield fleet


@asynccontextmanager
async def running_envoy(
    members: list[Member], *, plan: Plan, ports: EnvoyPorts, policy: Policy = "RING_HASH"
) -> AsyncIterator[RunningPart]:
    """Run an Envoy before these engines."""
    engines = {member.name: member.part.ports[0] for member in members}
    document = configuration(engines, ports=ports, policy=policy)
    running = await start_part(prepare_envoy(document, ports=ports, folder=plan.home.logs, token=plan.engine_token))
    try:
        await running.wait_until_healthy()
        yield running
    finally:
        await running.stop()


def client_of(url: str, token: str) -> httpx.AsyncClient:
    """Return a client that keeps no connection to what is stopped beneath it."""
    return httpx.AsyncClient(
        base_url=url,
        headers={"authorization": f"Bearer {token}"},
        timeout=300,
        trust_env=False,
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=2.0),
    )


def _completion(version_id: str, **more: Any) -> dict[str, Any]:
    return {"model": version_id, "prompt": PROMPT, "temperature": 0, **more}


def _member(plan: Plan, base_directory: Path, number: int, *, port: int, more: Mapping[str, str]) -> Member:
    name, address = f"engine-{number}", f"http://127.0.0.1:{port}"
    part = plan.part("engine", base_directory=base_directory)
    environment = {
        **part.environment,
        **ENGINE,
        **more,
        "LORRY_ENGINE_PORT": str(port),
        "LORRY_ENGINE_ID": name,
        "LORRY_ENGINE_ADDRESS": address,
        "LORRY_ADAPTER_CACHE_DIRECTORY": str(plan.home.folder("cache", name)),
    }
    token = plan.engine_token

    async def is_ready() -> bool:
        async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
            try:
                headers = {"authorization": f"Bearer {token}"}
                return (await client.get(f"{address}/lorry/ready", headers=headers)).status_code == 200
            except httpx.HTTPError:
                return False

    own = replace(
        part,
        name=name,
        environment=environment,
        log_path=plan.home.logs / f"{name}.log",
        address=address,
        ports=(port,),
        is_healthy=is_ready,
        start_timeout_seconds=_START_SECONDS,
    )
    return Member(name=name, part=own, token=token)
