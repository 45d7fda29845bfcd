"""What Kubernetes and Docker ask of a container: ready is said by a process that is, and by no other."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from kit.database import Database
from kit.settings import DatabaseSettings
from tests.support.registry_server import serving
from training.jobs.fleet.repository import WorkerRepository

ENGINE_TOKEN = "engine-token-for-tests"
SETTINGS = {
    "LORRY_REGISTRY_URL": "http://127.0.0.1:1",
    "LORRY_REGISTRY_TOKEN": "x" * 16,
    "LORRY_REGISTRY_ENGINE_TOKEN": "y" * 16,
    "LORRY_ENGINE_URL": "http://127.0.0.1:1",
    "LORRY_ENGINE_TOKEN": ENGINE_TOKEN,
    "LORRY_TRAINING_TOKEN": "x" * 16,
    "LORRY_BASE_DIRECTORY": ".",
    "LORRY_ADAPTER_CACHE_DIRECTORY": ".",
}
# role → the setting of its port, and where it says that it is ready
LISTEN = {
    "engine": ("LORRY_ENGINE_PORT", "/lorry/ready"),
    "gateway": ("LORRY_GATEWAY_PORT", "/readyz"),
    "registry": ("LORRY_REGISTRY_PORT", "/readyz"),
    "extractor": ("LORRY_EXTRACTION_WORKER_PORT", "/readyz"),
    "trainings": ("LORRY_TRAINING_PORT", "/readyz"),
}


class StandIn:
    """Listens on a port; ready at one path, for whoever has the engine's token where that is asked."""

    def __init__(self) -> None:
        self.path, self.token, self.status = "/readyz", "", 200
        self.port = ""

    async def answer(self, request: Request) -> JSONResponse:
        known = request.headers.get("authorization", "") == (f"Bearer {self.token}" if self.token else "")
        return JSONResponse({}, status_code=self.status if request.url.path == self.path and known else 404)


@pytest.fixture
async def stand_in() -> AsyncIterator[StandIn]:
    app, found = FastAPI(), StandIn()
    app.add_api_route("/{path:path}", found.answer, response_model=None)
    async with serving(app) as url:
        found.port = str(urlsplit(url).port)
        yield found


async def probe(role: str, database: DatabaseSettings, **settings: str) -> int | None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lorry.container", "probe"),
        env={**os.environ, **SETTINGS, "LORRY_DATABASE_URL": database.database_url, "LORRY_ROLE": role, **settings},
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert process.returncode in {0, 1}, said
    return process.returncode


@pytest.mark.parametrize("role", LISTEN)
async def test_who_listens_is_ready_when_it_says_so(
    role: str, stand_in: StandIn, database_settings: DatabaseSettings
) -> None:
    name, stand_in.path = LISTEN[role]
    stand_in.token = ENGINE_TOKEN if role == "engine" else ""
    assert await probe(role, database_settings, **{name: stand_in.port}) == 0
    stand_in.status = 503
    assert await probe(role, database_settings, **{name: stand_in.port}) == 1


async def test_a_trainer_is_ready_while_the_database_hears_it(
    database: Database, database_settings: DatabaseSettings
) -> None:
    worker = {"id": "trainer-0", "boot": "b", "host": "h", "prepare_slots": 1, "train_slots": 1, "lease_seconds": 60.0}
    assert await probe("trainer", database_settings, LORRY_WORKER_ID="trainer-0") == 1
    async with database.transaction() as session:
        await WorkerRepository(session).register(worker)
    assert await probe("trainer", database_settings, LORRY_WORKER_ID="trainer-0") == 0
    assert await probe("trainer", database_settings, LORRY_WORKER_ID="trainer-1") == 1


async def test_a_conductor_is_ready_where_its_database_answers(
    database: Database, database_settings: DatabaseSettings
) -> None:
    assert await probe("conductor", database_settings) == 0
