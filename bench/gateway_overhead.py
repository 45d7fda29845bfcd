"""What the gateway adds to a streamed chat, beside the same upstream called directly.

Upstream (`bench.fixed_upstream`, an engine of fixed latency), gateway, registry and PostgreSQL are processes of their
own; the client is this one, and the same for both sides. 32 callers each read one stream after the other: the first
event is due after 50 ms, then one every 25 ms, 20 in all. Sides take turns within a round; who begins alternates. In
each turn every caller's first stream is told apart: no connection to the upstream is open then, and what the gateway
remembers of keys and adapters is as old as the other side's turn was long, as it is where requests are rare.

Measured is the time from sending a request to its first event, and the age of every later event when it arrives, which
the upstream writes into it. What is added is ours less the peer's at the same quantile of the same round. At last 500
streams are opened that say nothing for an hour, and the 32 callers are measured again beside them; the peer then holds
500 of its own.

Processor time is the gateway's own, which a crowded machine stretches least of all that is measured here.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil

from bench.fixed_upstream import EVERY_SECONDS, FIRST_SECONDS, IDLE
from bench.load import at_quantile
from bench.report import Measure, bound, compare, report
from lorry.context import Context, open_context
from lorry.keys import local_api_key
from lorry.local.part import Part, start_part
from registry.client import draft_from_directory
from registry.manifest import Owner
from serving.gateway.repository import TenantLimit, TenantLimitRepository
from tests.support.adapters import BASE, BASE_CONFIG, write_adapter

_CALLERS = 32
_IDLE = 500
_EVENTS = 20
_STREAM_SECONDS = FIRST_SECONDS + (_EVENTS - 1) * EVERY_SECONDS
_UPSTREAM_PORT = 25_690
_TARGET_P50_MS, _TARGET_P99_MS = 3.0, 10.0
_TOKEN = "a-token-for-the-benchmark"
_SETTLE_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class _Side:
    """One way to the upstream."""

    url: str
    key: str
    model: str


@dataclass(frozen=True, kw_only=True)
class _Times:
    """Milliseconds: until the first event of each stream, and the age of each later event when it came.

    `cold` are first events of the streams that each caller begins a turn with, of which nothing else is counted.
    """

    first: list[float] = field(default_factory=list)
    later: list[float] = field(default_factory=list)
    cold: list[float] = field(default_factory=list)


async def run(*, quick: bool) -> Path:
    """Measure 9 rounds of 10 streams a caller (quick: 2 of 2), then one round beside 500 idle streams."""
    rounds, streams = (2, 2) if quick else (9, 10)
    with tempfile.TemporaryDirectory(prefix="lorry-bench-", ignore_cleanup_errors=True) as folder:
        upstream = f"http://127.0.0.1:{_UPSTREAM_PORT}"
        os.environ |= {"LORRY_HOME": folder, "LORRY_PORT_BASE": "25600", "LORRY_GATEWAY_PORT": "25680"}
        os.environ |= {"LORRY_ENGINE_URL": upstream, "LORRY_ENGINE_TOKEN": _TOKEN}
        running = await start_part(_upstream(Path(folder), upstream))
        try:
            await running.wait_until_healthy()
            async with open_context() as context:
                ours, peer = await _sides(context, Path(folder))
                gc.collect()
                gc.freeze()  # a full collection of this process would be counted as waiting, on either side
                gateway = _process(context)
                spent = _processor_seconds(gateway)
                quiet = [
                    await _turn(ours, peer, streams=streams, ours_first=bool(number % 2)) for number in range(rounds)
                ]
                spent = _processor_seconds(gateway) - spent
                held, beside = await _beside_idle(ours, peer, streams=streams)
        finally:
            await running.stop()
    measures = [
        *_added("first event", [(a.first, b.first) for a, b in quiet], targets=True),
        *_added("first event after a pause", [(a.cold, b.cold) for a, b in quiet]),
        *_added("each later event", [(a.later, b.later) for a, b in quiet]),
        bound(
            f"the gateway's processor time for a stream of {_EVENTS} events",
            unit="ms",
            ours=[1000 * spent / (_CALLERS * (1 + streams) * rounds)],
            target=None,
        ),
        bound(f"idle streams held, of {_IDLE}", unit="streams", ours=[float(held)], target=_IDLE, better="higher"),
        *_added(f"first event beside {_IDLE} idle streams", [(beside[0].first, beside[1].first)]),
    ]
    return report("gateway_overhead", measures, peer="the same upstream, called directly", quick=quick)


def _process(context: Context) -> psutil.Process:
    """Return the process of the gateway."""
    entry = next(entry for entry in context.stack.ledger.entries() if entry.name == "gateway")
    return psutil.Process(entry.pid)


def _processor_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _upstream(folder: Path, url: str) -> Part:
    async def is_healthy() -> bool:
        try:
            async with httpx.AsyncClient(trust_env=False) as http:
                return (await http.get(f"{url}/health")).status_code == 200
        except httpx.HTTPError:
            return False

    return Part(
        name="upstream",
        argv=(sys.executable, "-m", "bench.fixed_upstream", str(_UPSTREAM_PORT)),
        log_path=folder / "upstream.log",
        address=url,
        ports=(_UPSTREAM_PORT,),
        is_healthy=is_healthy,
    )


async def _sides(context: Context, folder: Path) -> tuple[_Side, _Side]:
    """Publish one adapter, start the gateway, and lift the tenant's limits: they are not what is measured."""
    await context.registry.register_base(BASE, config=BASE_CONFIG)
    owner = Owner(tenant=context.settings.tenant, user="ann")
    directory = write_adapter(folder / "adapter", seed=1)
    manifest = await context.registry.publish(directory, draft=draft_from_directory(directory, owner=owner, base=BASE))
    await context.registry.move_alias(
        owner, "profile", "live", version_id=manifest.version_id, expected_version_id=None
    )
    key = await local_api_key(context.plan)
    plenty = TenantLimit(requests_per_second=1e6, burst=1_000_000, concurrent=10_000)
    async with context.database.transaction() as session:
        await TenantLimitRepository(session).put(context.settings.tenant, plenty)
    await context.stack.ensure("gateway")
    ours = _Side(url=context.plan.gateway_url, key=key, model="users/ann")
    return ours, _Side(url=context.plan.engine_url, key=_TOKEN, model=manifest.version_id)


async def _turn(ours: _Side, peer: _Side, *, streams: int, ours_first: bool) -> tuple[_Times, _Times]:
    found = {}
    for side in (ours, peer) if ours_first else (peer, ours):
        found[side] = await _measure(side, streams=streams)
    return found[ours], found[peer]


async def _measure(side: _Side, *, streams: int) -> _Times:
    """Let every caller read one stream, and then so many more; callers begin spread over one stream's time."""
    times, before = _Times(), _Times()

    async def caller(number: int) -> None:
        await asyncio.sleep(_STREAM_SECONDS * number / _CALLERS)
        await _read(side, before)
        for _ in range(streams):
            await _read(side, times)

    await asyncio.gather(*(caller(number) for number in range(_CALLERS)))
    times.cold.extend(before.first)
    return times


async def _read(side: _Side, times: _Times) -> None:
    """Read one stream to its end."""
    sent = time.monotonic()
    reader, writer = await _ask(side, "hello", events=_EVENTS)
    first = True
    async for event in _events(reader):
        now = time.monotonic()
        if first:
            times.first.append(1000 * (now - sent))
        else:
            times.later.append(1000 * (now - float(event["choices"][0]["delta"]["content"])))
        first = False
    writer.close()


async def _beside_idle(ours: _Side, peer: _Side, *, streams: int) -> tuple[int, tuple[_Times, _Times]]:
    """Return how many idle streams our side held to the end, and both sides' times beside as many of their own."""
    found, held = [], 0
    for side in (ours, peer):
        async with AsyncExitStack() as stack:
            readers = [await _idle(side, stack) for _ in range(_IDLE)]
            await asyncio.sleep(_SETTLE_SECONDS)
            found.append(await _measure(side, streams=streams))
            if side is ours:
                held = sum(not reader.at_eof() for reader in readers)
    return held, (found[0], found[1])


async def _idle(side: _Side, stack: AsyncExitStack) -> asyncio.StreamReader:
    """Open a stream that goes silent after its first event."""
    reader, writer = await _ask(side, IDLE, events=2)
    stack.callback(writer.close)
    await anext(_events(reader))
    return reader


async def _ask(side: _Side, question: str, *, events: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a chat over a connection of its own: a client that costs next to nothing."""
    address = urlsplit(side.url)
    message = {"role": "user", "content": question}
    body = json.dumps({"model": side.model, "messages": [message], "max_tokens": events, "stream": True}).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {address.netloc}\r\nauthorization: Bearer {side.key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(head.encode() + body)
    status = await reader.readline()
    if b" 200 " not in status:
        raise RuntimeError(f"a request failed, so nothing was measured: {status!r} {await reader.read(2000)!r}")
    return reader, writer


async def _events(reader: asyncio.StreamReader) -> Any:
    """Yield the events of an answer; headers and the frames of chunks are no events."""
    while line := await reader.readline():
        if line.startswith(b"data: {"):
            yield json.loads(line.removeprefix(b"data: "))


def _added(what: str, rounds: list[tuple[list[float], list[float]]], *, targets: bool = False) -> list[Measure]:
    """Return what is added at both quantiles, and beside it what both sides took."""
    measures = []
    for name, share, target in (("p50", 0.5, _TARGET_P50_MS), ("p99", 0.99, _TARGET_P99_MS)):
        ours, peer = ([at_quantile(side, share) for side in sides] for sides in zip(*rounds, strict=True))
        added = [mine - theirs for mine, theirs in zip(ours, peer, strict=True)]
        measures += [
            bound(f"added to the {what}, {name}", unit="ms", ours=added, target=target if targets else None),
            compare(f"{what}, {name}", unit="ms", ours=ours, peer=peer),
        ]
    return measures
