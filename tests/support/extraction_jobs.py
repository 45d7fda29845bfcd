"""Batches of made users before a real registry, PostgreSQL and S3, an engine that does as it is told, and workers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import SecretStr

from kit.database import Database
from kit.settings import DatabaseSettings, StorageSettings
from registry.client import RegistryClient
from registry.manifest import BaseIdentity
from serving.extraction.bank import Bank
from serving.gateway.settings import GatewaySettings
from serving.jobs.batch import Batch, Submission
from serving.jobs.batches import Batches
from serving.jobs.fleet.fleet import Fleet
from serving.jobs.results import Results
from serving.jobs.selection import Selection
from serving.jobs.settings import BatchSettings, ExtractionWorkerSettings
from serving.jobs.states import ENDED
from serving.jobs.vault import Vault
from serving.jobs.worker import Worker
from tests.support.adapters import BASE
from tests.support.gateway_server import ENGINE_TOKEN, Gateway, StandInEngine, engine_url, gateway
from tests.support.registry_server import TOKEN, client, registry_settings, registry_url
from transcripts.store import TranscriptStore
from transcripts.transcript import Transcript, Turn

__all__ = ["client", "engine_url", "gateway", "registry_settings", "registry_url"]

WEBHOOK_KEY = "a-webhook-key-for-tests-0123456789abcdef"
_ANSWER = json.dumps("I love green tea")
_TIMEOUT_SECONDS = 60.0


@dataclass
class Engine(StandInEngine):
    """An engine whose answers wait for `open`, and that refuses what `refuses` says; it counts who asks at once.

    `asked` holds the version of every question; what is only scored is no question. `is_down` makes its health check
    fail and every request end in 503, as an engine that is starting.
    """

    answer: Callable[[dict[str, Any]], str] = lambda body: _ANSWER
    refuses: Callable[[str], int | None] = lambda version_id: None
    open: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[str] = field(default_factory=list)
    now: Counter[str] = field(default_factory=Counter)
    most_at_once: int = 0

    def __post_init__(self) -> None:
        self.open.set()

    def hold_at(self, version_id: str) -> None:
        """Close `open` when this version is asked for the first time, and never again."""
        to_hold = [version_id]

        def hold_once(asked: str) -> None:
            if asked in to_hold:
                to_hold.remove(asked)
                self.open.clear()

        self.refuses = hold_once

    async def chat(self, request: Request) -> JSONResponse | StreamingResponse:
        body = await request.json()
        model = body["model"]
        if "prompt_logprobs" not in body:
            self.asked.append(model)
        status = 503 if self.is_down else self.refuses(model)
        if status is not None:
            return JSONResponse({"error": {"message": "as the test wants it"}}, status_code=status)
        self.now[model] += 1
        self.most_at_once = max(self.most_at_once, sum(count > 0 for count in self.now.values()))
        try:
            while not self.open.is_set() and not await request.is_disconnected():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.open.wait(), 0.05)
            return await super().chat(request)
        finally:
            self.now[model] -= 1


@dataclass(kw_only=True)
class Mill:
    """What a test submits to, and the workers that it starts."""

    gateway: Gateway
    engine: Engine
    settings: dict[str, Any]
    batch_settings: BatchSettings
    directory: Path
    bank: Bank
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def database(self) -> Database:
        """The test's database."""
        return self.gateway.database

    @property
    def batches(self) -> Batches:
        """Every batch."""
        return Batches(self.database, self.batch_settings)

    async def add_users(self, *users: str, tenant: str = "default", base: BaseIdentity = BASE) -> None:
        """Give each an adapter that is live, and something said."""
        for user in users:
            manifest = await self.gateway.publish(user, seed=len(self.versions) + 1, tenant=tenant, base=base)
            self.versions[user] = manifest.version_id
            turns = (Turn(role="user", text="I love green tea, what about you?"),)
            async with self.database.transaction() as session:
                transcript = Transcript(turns=turns, source_format="test")
                await TranscriptStore(session).add(tenant, user, [transcript])

    async def submit(self, *users: str, tenant: str = "default", webhook: str | None = None, **choice: Any) -> Batch:
        """Queue a batch of these users, or of everybody when none is named."""
        selection = Selection.of(users=users or None, everybody=not users, **choice)
        return await self.batches.submit(Submission(tenant=tenant, selection=selection, webhook_url=webhook))

    async def get(self, batch_id: str) -> Batch:
        """Return a batch of the tenant `default`."""
        return await self.batches.get(batch_id, tenant="default")

    async def until_ended(self, batch_id: str, *, seconds: float = _TIMEOUT_SECONDS) -> Batch:
        """Wait until a batch has ended."""

        async def ended() -> bool:
            return (await self.get(batch_id)).state in ENDED

        await self.until(ended, what=lambda: f"the end of {batch_id}", seconds=seconds)
        return await self.get(batch_id)

    async def until(
        self,
        holds: Callable[[], Awaitable[bool] | bool],
        *,
        what: Callable[[], str] | str = "it",
        seconds: float = _TIMEOUT_SECONDS,
    ) -> None:
        """Wait until something holds."""
        end = time.monotonic() + seconds
        while True:
            found = holds()
            if await found if isinstance(found, Awaitable) else found:
                return
            if time.monotonic() > end:
                raise AssertionError(
                    f"{what() if callable(what) else what} did not come in {seconds:g} s; {self.log()}"
                )
            await asyncio.sleep(0.02)

    async def lines(self, batch_id: str, *, after: int = 0) -> list[dict[str, Any]]:
        """Return the results so far."""
        vault = Vault(self.batch_settings, self.gateway.registry)
        try:
            found = Results(self.database, vault).stream(batch_id, tenant="default", after=after)
            return [line async for line in found]
        finally:
            vault.close()

    async def workers(self) -> dict[str, str]:
        """Return each worker's state."""
        return {each["worker_id"]: each["state"] for each in await Fleet(self.database).workers()}

    def worker_settings(self, worker_id: str = "one", **changes: Any) -> ExtractionWorkerSettings:
        """Return the settings of a worker in this process."""
        return ExtractionWorkerSettings.model_validate({**self.settings, "worker_id": worker_id, **changes})

    @asynccontextmanager
    async def working(self, worker_id: str = "one", **changes: Any) -> AsyncIterator[Worker]:
        """Run a worker in this process while the block runs."""
        worker = Worker(self.worker_settings(worker_id, **changes), bank=self.bank)
        task = asyncio.create_task(worker.run())
        try:
            yield worker
        finally:
            self.engine.open.set()
            worker.stop.set()
            await task

    def start(self, worker_id: str = "one", **changes: Any) -> subprocess.Popen[bytes]:
        """Start a worker as a process of its own; once it is killed, others wait 2 s for its work."""
        short = {"extraction_lease_seconds": 2.0, **changes}
        given = self.worker_settings(worker_id, **short).model_dump(exclude_unset=True)
        environment = {f"LORRY_{name.upper()}": _shown(value) for name, value in given.items() if value is not None}
        with (self.directory / f"{worker_id}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "serving.jobs"],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.processes[worker_id] = process
        return process

    def kill(self, worker_id: str) -> None:
        """Kill a worker's process, as a power cut would."""
        process = self.processes.pop(worker_id)
        process.send_signal(signal.SIGKILL)
        process.wait(30)

    def log(self) -> str:
        """Return the end of every worker's log."""
        return "\n".join(path.read_text()[-3000:] for path in sorted(self.directory.glob("*.log")))

    def close(self) -> None:
        """Let everything go that waits, and kill what runs."""
        self.engine.open.set()
        for worker_id in list(self.processes):
            self.kill(worker_id)


def _shown(value: Any) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


@pytest.fixture
def stand_in() -> Iterator[Engine]:
    """This test's engine; nothing waits for it when the test is over."""
    engine = Engine()
    try:
        yield engine
    finally:
        engine.open.set()


@pytest.fixture
def batch_settings(storage_settings: StorageSettings) -> BatchSettings:
    """Results under this test's prefix; webhooks may reach this machine."""
    return BatchSettings(
        **storage_settings.model_dump(exclude={"log_level"}),
        extraction_webhook_key=SecretStr(WEBHOOK_KEY),
        extraction_webhook_private=True,
    )


@pytest.fixture
def gateway_settings(
    database_settings: DatabaseSettings, batch_settings: BatchSettings, registry_url: str, engine_url: str
) -> GatewaySettings:
    """The settings of this test's gateway."""
    return GatewaySettings(
        **database_settings.model_dump(),
        **batch_settings.model_dump(exclude={"log_level"}),
        registry_url=registry_url,
        registry_token=SecretStr(TOKEN),
        engine_url=engine_url,
        engine_token=SecretStr(ENGINE_TOKEN),
        gateway_cache_seconds=0,
        gateway_max_request_bytes=100_000,
    )


@pytest.fixture
def mill(
    gateway: Gateway,
    stand_in: Engine,
    gateway_settings: GatewaySettings,
    batch_settings: BatchSettings,
    tmp_path: Path,
    client: RegistryClient,
) -> Iterator[Mill]:
    """A queue without workers; those that a test starts as processes are killed after it."""
    bank = {
        "name": "tests",
        "version": "1",
        "topics": [
            {
                "topic": "likes",
                "title": "Likes",
                "stance": "likes",
                "questions": [
                    {"id": "likes.general", "paraphrases": ["What?", "What then?"], "answer_schema": {"type": "string"}}
                ],
            }
        ],
    }
    settings = {
        **{
            name: value
            for name, value in gateway_settings.model_dump().items()
            if name in ExtractionWorkerSettings.model_fields
        },
        "extraction_asks_per_topic": 1,
        "extraction_samples": 1,
        "extraction_worker_port": 0,
        "extraction_lease_seconds": 60.0,  # a slow machine is no dead worker
        "extraction_poll_seconds": 0.05,
        "extraction_backoff_seconds": 0.1,
        "extraction_max_backoff_seconds": 0.5,
        "extraction_drain_seconds": 5.0,
        "engine_timeout_seconds": 30.0,
    }
    mill = Mill(
        gateway=gateway,
        engine=stand_in,
        settings=settings,
        batch_settings=batch_settings,
        directory=tmp_path,
        bank=Bank.model_validate(bank),
    )
    try:
        yield mill
    finally:
        mill.close()
