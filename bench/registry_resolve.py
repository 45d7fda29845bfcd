"""Does resolve stay flat? A registry of a million adapters, beside the least that PostgreSQL could do.

Ours is what a gateway asks: `Resolver.resolve` of a random user's live version, manifest included. The peer is a bare
primary-key SELECT of one column, through the same pool, in the same process, in turn. Over HTTP, the peer is a route of
the same app that does nothing but that SELECT. Of listings, page 10,000 is compared with page one of the same listing.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI, Response
from pydantic import SecretStr
from sqlalchemy import select

from bench.registry_fill import TENANT, Filled, fill, user_name
from bench.report import Measure, compare, report
from kit.database import Database
from kit.master_keys import KeyFile
from kit.settings import DatabaseSettings
from lorry.local.part import start_part
from lorry.local.postgres import create_database, database_url, prepare_postgres_async
from lorry.schema import migrate
from registry.access import Operator
from registry.app import create_app
from registry.catalog.cursor import write_cursor
from registry.catalog.listings import Listings
from registry.catalog.repository import AdapterFilter
from registry.catalog.resolver import Resolver
from registry.manifest import AdapterRef, Owner
from registry.models import AdapterRow, VersionRow
from registry.services import kept
from registry.settings import RegistrySettings

_CALLERS = 64
_PAGE_SIZE = 100
_KEYS = {
    "names": (AdapterRow.user_id.collate("C"), AdapterRow.name.collate("C")),
    "created": (AdapterRow.created_at, AdapterRow.id),
}
_TOKEN = "a-token-of-this-benchmark"
Call = Callable[[random.Random], Awaitable[object]]


async def run(*, quick: bool) -> Path:
    """Fill a PostgreSQL of its own, measure, and write the report; LORRY_BENCH_ADAPTERS sets another size."""
    adapters = int(os.environ.get("LORRY_BENCH_ADAPTERS", 20_000 if quick else 1_000_000))
    rounds, calls = (3, 20) if quick else (9, 100)
    with tempfile.TemporaryDirectory(prefix="lorry-bench-", ignore_cleanup_errors=True) as folder:
        directory = Path(folder) / "postgres"
        directory.mkdir()
        postgres = await start_part(await prepare_postgres_async(directory, log_path=directory / "log"))
        try:
            await postgres.wait_until_healthy()
            await create_database(directory, name="bench")
            settings = DatabaseSettings(database_url=database_url(directory, name="bench"))
            database = Database(settings)
            await migrate(database)
            filled = await fill(database, adapters=adapters, on_progress=_say)
            measures = [
                *await _resolves(database, filled, rounds=rounds, calls=calls),
                *await _pages(database, filled, rounds=rounds, calls=calls),
                *await _over_http(settings, filled, rounds=rounds, calls=calls),
                compare("fill: seconds", unit="s", ours=[filled.seconds]),
                compare("database", unit="GiB", ours=[filled.database_bytes / (1 << 30)]),
            ]
            await database.close()
        finally:
            await postgres.stop()
    title = f"registry_resolve ({filled.adapters:,} adapters, {filled.versions:,} versions)"
    print(title)
    return report("registry_resolve", measures, peer="a bare primary-key SELECT, or page one", quick=quick)


async def _resolves(database: Database, filled: Filled, *, rounds: int, calls: int) -> list[Measure]:
    resolver = Resolver(database)
    ours = await _measure(
        {
            "ours": lambda seed: resolver.resolve(_live(filled, seed)),
            "peer": lambda seed: _bare(database, _version_id(filled, seed)),
        },
        rounds=rounds,
        calls=calls,
    )
    return _compared("resolve by alias, 64 callers", ours, target=2.0)


async def _pages(database: Database, filled: Filled, *, rounds: int, calls: int) -> list[Measure]:
    listings, found = Listings(database), []
    for order, wanted in (
        ("as created", AdapterFilter(tenant=TENANT)),
        ("by name", AdapterFilter(tenant=TENANT, search="u")),
    ):
        far = await _cursor_of(database, wanted, page=min(10_000, filled.adapters // _PAGE_SIZE - 1))

        async def page(cursor: str | None, wanted: AdapterFilter = wanted) -> object:
            return await listings.list_adapters(wanted, cursor=cursor, limit=_PAGE_SIZE)

        seconds = await _measure(
            {"ours": lambda _, far=far, page=page: page(far), "peer": lambda _, page=page: page(None)},  # type: ignore[misc]
            rounds=rounds,
            calls=max(5, calls // 10),
            callers=8,
        )
        found += _compared(f"list {order}: page 10,000 ÷ page one", seconds, target=3.0)
    return found


async def _over_http(settings: DatabaseSettings, filled: Filled, *, rounds: int, calls: int) -> list[Measure]:
    """The whole way, both sides through the same server, token check and client."""
    keys = Path(settings.database_url.partition("host=")[2]).parent.parent / "master-keys.json"
    await asyncio.to_thread(KeyFile.create, keys)
    app = create_app(
        RegistrySettings(
            **settings.model_dump(),
            registry_token=SecretStr(_TOKEN),
            master_key_file=keys,
            s3_endpoint_url="http://127.0.0.1:1",  # nothing measured here reaches it
        )
    )
    _add_bare_route(app)
    headers = {"authorization": f"Bearer {_TOKEN}"}
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, access_log=False))
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn offers nothing else to wait for
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        async with AsyncExitStack() as stack:
            url = f"http://127.0.0.1:{port}"
            # One client a caller: a shared one hands its connections out in no order, which would be what is measured.
            clients = [
                await stack.enter_async_context(
                    httpx.AsyncClient(base_url=url, headers=headers, timeout=60, trust_env=False)
                )
                for _ in range(_CALLERS)
            ]
            free = asyncio.Queue[httpx.AsyncClient]()
            for client in clients:
                free.put_nowait(client)

            async def ask(path: str) -> None:
                client = free.get_nowait()
                try:
                    (await client.get(path)).raise_for_status()
                finally:
                    free.put_nowait(client)

            seconds = await _measure(
                {
                    "ours": lambda seed: ask(_path(filled, seed)),
                    "peer": lambda seed: ask(f"/bench/{_version_id(filled, seed)}"),
                },
                rounds=rounds,
                calls=max(5, calls // 5),
            )
    finally:
        server.should_exit = True
        await task
    return _compared("resolve over HTTP, 64 callers", seconds, target=None)


async def _measure(sides: dict[str, Call], *, rounds: int, calls: int, callers: int = _CALLERS) -> dict[str, Any]:
    """Return side → a list of rounds, each the seconds of every call; sides take turns, and turns at going first."""
    seconds: dict[str, list[list[float]]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        turn = list(sides.items())
        for name, call in turn if number % 2 else reversed(turn):
            took = await _load(call, seed=f"{name}-{number}", calls=calls, callers=callers)
            if number:  # the first round warms caches and prepared statements up
                seconds[name].append(took)
    return seconds


async def _load(call: Call, *, seed: str, calls: int, callers: int) -> list[float]:
    took: list[float] = []

    async def caller(number: int) -> None:
        chosen = random.Random(f"{seed}-{number}")
        for _ in range(calls):
            started = time.perf_counter()
            await call(chosen)
            took.append(time.perf_counter() - started)

    await asyncio.gather(*[caller(number) for number in range(callers)])
    return took


def _compared(measure: str, seconds: dict[str, list[list[float]]], *, target: float | None) -> list[Measure]:
    found = []
    for name, percent in (("p50", 50), ("p99", 99)):
        at = {
            side: [statistics.quantiles(took, n=100)[percent - 1] * 1000 for took in each]
            for side, each in seconds.items()
        }
        found.append(compare(f"{measure}, {name}", unit="ms", ours=at["ours"], peer=at["peer"], target=target))
    return found


async def _bare(database: Database, version_id: str) -> object:
    async with database.reading() as session:
        return await session.scalar(select(VersionRow.state).where(VersionRow.version_id == version_id))


def _add_bare_route(app: FastAPI) -> None:
    @app.get("/bench/{version_id}")
    async def bare(version_id: str, caller: Operator) -> Response:
        return Response(str(await _bare(kept(app, Database), version_id)))


async def _cursor_of(database: Database, wanted: AdapterFilter, *, page: int) -> str:
    """Return the cursor that leads to a page, without walking there."""
    key = _KEYS[wanted.order]
    statement = select(*key).where(AdapterRow.tenant == TENANT).order_by(*key).offset(page * _PAGE_SIZE - 1).limit(1)
    async with database.reading() as session:
        last: Any = (await session.execute(statement)).one()
        return write_cursor(wanted.order, *last)


def _live(filled: Filled, chosen: random.Random) -> AdapterRef:
    return AdapterRef(owner=Owner(tenant=TENANT, user=_user(filled, chosen)))


def _path(filled: Filled, chosen: random.Random) -> str:
    return f"/v1/tenants/{TENANT}/users/{_user(filled, chosen)}/adapters/profile/resolution"


def _user(filled: Filled, chosen: random.Random) -> str:
    number = chosen.randrange(filled.adapters)
    return user_name(number - number % 1000 if number % 1000 == 999 else number)  # every thousandth is suspended


def _version_id(filled: Filled, chosen: random.Random) -> str:
    """A live version, so that both sides touch as many rows: PostgreSQL's and the system's caches hold not all."""
    return filled.version_id(chosen.randrange(filled.adapters), 3)


def _say(done: int, total: int) -> None:
    if done == total or done % 250_000 == 0:
        print(f"filled {done:,} of {total:,} adapters", flush=True)
