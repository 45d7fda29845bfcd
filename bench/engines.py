"""Engines side by side: ours against a real registry and S3, and stock vLLM, on one base and the same adapters.

`open_engines` starts PostgreSQL, SeaweedFS, the registry and every engine asked for, and stops them. Engines
stand still but in `Engines.only`, which lets one of them run: a vLLM worker that waits for work spins, and would take
its turn of the cores from whatever is measured or made ready.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx
import psutil

from bench.adapters import Shelf
from bench.exposition import Exposition
from bench.stock import stock_engine
from lorry.context import Context, open_context
from lorry.local.part import Part, RunningPart, start_part
from registry.manifest import BaseIdentity
from serving.engine.settings import EngineSettings
from tests.support.ports import free_port_block
from training.base_models import DEFAULT_BASE, prepare_base

Product = Literal["grouped", "stock"]
PRODUCTS: tuple[Product, ...] = ("grouped", "stock")
_PORTS = 30  # of which a home has 22
_WAKE_SECONDS = 1.5  # a heartbeat and a half, so that who stood still is among the living again
_QUIET_SECONDS = 120.0


@dataclass(frozen=True, kw_only=True)
class Side:
    """One engine of a benchmark."""

    name: str
    product: Product | None  # of ours; None = stock vLLM
    running: RunningPart
    token: str = ""

    @property
    def url(self) -> str:
        """Where it listens."""
        return self.running.part.address

    @property
    def is_ours(self) -> bool:
        """Whether it is Lorry's."""
        return self.product is not None

    @property
    def headers(self) -> dict[str, str]:
        """What a request must carry."""
        return {"authorization": f"Bearer {self.token}"} if self.token else {}

    async def read_metrics(self) -> Exposition:
        """Return what ``/metrics`` says now."""
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            return Exposition((await client.get(f"{self.url}/metrics")).raise_for_status().text)

    async def get(self, path: str) -> Any:
        """Return the JSON of one of our routes."""
        async with httpx.AsyncClient(trust_env=False, timeout=60, headers=self.headers) as client:
            return (await client.get(f"{self.url}{path}")).raise_for_status().json()

    def resident_bytes(self) -> int:
        """Return the memory of all its processes, pages that several of them share counted once."""
        return sum(process.memory_full_info().pss for process in self._processes())

    def stand_still(self) -> None:
        """Stop every process of the engine where it is."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let the engine run again."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.running.pid, number)
        except ProcessLookupError:
            pass  # it died, and whoever asks it next hears so

    def _processes(self) -> list[psutil.Process]:
        leader = psutil.Process(self.running.pid)
        return [leader, *leader.children(recursive=True)]


@dataclass(kw_only=True)
class Engines:
    """What a benchmark works with: the engines, and a shelf that gives them adapters."""

    shelf: Shelf
    context: Context
    sides: dict[str, Side] = field(default_factory=dict)

    @property
    def ours(self) -> list[Side]:
        """Ours, one for each product asked for."""
        return [side for side in self.sides.values() if side.is_ours]

    @property
    def stock(self) -> Side:
        """The peer."""
        return self.sides["stock"]

    @asynccontextmanager
    async def only(self, side: Side) -> AsyncIterator[Side]:
        """Let one engine run, for the duration of a block."""
        side.go_on()
        await asyncio.sleep(_WAKE_SECONDS)
        await _wait_until_ready(side)
        try:
            yield side
        finally:
            side.stand_still()

    def turns(self, number: int) -> list[Side]:
        """Return the sides in the order of round `number`: who is first changes."""
        sides = list(self.sides.values())
        shift = number % len(sides)
        return sides[shift:] + sides[:shift]


@asynccontextmanager
async def open_engines(
    *,
    products: tuple[Product, ...] = PRODUCTS,
    stock: bool = True,
    engine: Mapping[str, Any] | None = None,
    ours: Mapping[str, Any] | None = None,
) -> AsyncIterator[Engines]:
    """Start everything in a home of its own, and stop it when the block ends.

    Args:
        products: one engine of ours for each: the CPU product by adapter, or stock vLLM's own.
        stock: whether the peer runs beside them.
        engine: `EngineSettings` of all engines, by field.
        ours: more of them that the peer has no counterpart of.
    """
    stop_when_terminated()
    with tempfile.TemporaryDirectory(prefix="lorry-bench-", ignore_cleanup_errors=True) as name:
        folder, ports = Path(name), free_port_block(_PORTS)
        os.environ |= {
            "LORRY_HOME": name,
            "LORRY_PORT_BASE": str(ports),
            "LORRY_GATEWAY_PORT": str(ports + 21),
        }
        first_port = ports + 22
        base_directory = unpacked_base()
        async with open_context() as context, AsyncExitStack() as stack:
            base = BaseIdentity.of_directory(base_directory, id=DEFAULT_BASE)
            await context.registry.register_base(base, config=(base_directory / "config.json").read_bytes())
            shelf = Shelf(folder / "shelf", registry=context.registry, base_directory=base_directory, base=base)
            engines = Engines(shelf=shelf, context=context)
            shared = {"heartbeat_seconds": 1.0, "engine_lease_seconds": 86_400.0, **(engine or {})}
            for number, product in enumerate(products):
                settings = {**shared, **(ours or {})}
                part = _our_part(context, base_directory, settings, product=product, port=first_port + number)
                label = "ours" if product == "grouped" else "ours, stock product"
                engines.sides[label] = Side(
                    name=label,
                    product=product,
                    running=await _start(stack, part),
                    token=context.plan.engine_token,
                )
            if stock:
                port = first_port + len(PRODUCTS)
                part = _stock_part(context, base_directory, shared, shelf.stock_directory, port=port)
                engines.sides["stock"] = Side(name="stock", product=None, running=await _start(stack, part))
            for side in engines.sides.values():
                stack.callback(side.go_on)  # or it would not hear that it is to stop
            await asyncio.gather(*(side.running.wait_until_healthy() for side in engines.sides.values()))
            for side in engines.sides.values():
                side.stand_still()
            tell("the engines are ready")
            yield engines


def tell(what: str) -> None:
    """Say on standard error how far a long benchmark is."""
    print(f"  {time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


async def _start(stack: AsyncExitStack, part: Part) -> RunningPart:
    running = await start_part(part)
    stack.push_async_callback(running.stop)
    return running


def _our_part(
    context: Context, base_directory: Path, settings: Mapping[str, Any], *, product: Product, port: int
) -> Part:
    """Ours as `lorry up` starts it, with other settings, a port, a name and a cache of its own."""
    plan = context.plan
    part = plan.part("engine", base_directory=base_directory)
    environment = {
        **part.environment,
        **{f"LORRY_{name.upper()}": str(value) for name, value in settings.items()},
        "LORRY_ENGINE_PORT": str(port),
        "LORRY_ENGINE_ID": f"bench-{product}",
        "LORRY_ADAPTER_CACHE_DIRECTORY": str(plan.home.folder("cache", product)),
        "LORRY_CPU_PRODUCT": product,
    }
    address = f"http://127.0.0.1:{port}"
    return dataclasses.replace(
        part,
        name=f"our engine ({product} product)",
        environment=environment,
        log_path=plan.home.logs / f"engine-{product}.log",
        address=address,
        ports=(port,),
        is_healthy=lambda: _answers(f"{address}/lorry/ready", token=plan.engine_token),
    )


def _stock_part(
    context: Context, base_directory: Path, settings: Mapping[str, Any], adapters: Path, *, port: int
) -> Part:
    engine = EngineSettings(
        base_directory=base_directory,
        engine_token="unused-token",  # pydantic wraps it
        registry_url="http://127.0.0.1:1",
        registry_engine_token="unused-token",  # pydantic wraps it
        adapter_cache_directory=adapters,
        **settings,
    )
    log_path = context.plan.home.logs / "engine-vllm.log"
    return stock_engine(engine, adapters=adapters, port=port, log_path=log_path)


def unpacked_base() -> Path:
    """Unpacked once a machine, where the tests have it as well: a benchmark's home is new each time."""
    return prepare_base(DEFAULT_BASE, Path(tempfile.gettempdir()) / "lorry-base" / DEFAULT_BASE)


def stop_when_terminated() -> None:
    """Let SIGTERM end the run as Ctrl-C does: engines that stand still must not outlive it."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


async def _wait_until_ready(side: Side) -> None:
    path = "/lorry/ready" if side.is_ours else "/health"
    deadline = time.monotonic() + _QUIET_SECONDS
    while not await _answers(f"{side.url}{path}", token=side.token):
        if side.running.exit_code is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{side.name} does not answer any more; see {side.running.part.log_path}")
        await asyncio.sleep(0.2)


async def _answers(url: str, *, token: str = "") -> bool:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            return (await client.get(url, headers=headers)).status_code == 200
    except httpx.HTTPError:
        return False
