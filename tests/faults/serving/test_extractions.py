"""Extraction workers, as processes, are killed with SIGKILL wherever they are; engine, database and receivers fail.

Whatever happens: nobody is lost, nobody's result is delivered twice, and who was in hand is asked again once a kill.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import Response
from sqlalchemy import text

from kit.settings import DatabaseSettings, StorageSettings
from kit.storage import ObjectStorage
from lorry.local.part import Part, RunningPart, start_part
from lorry.local.postgres import create_database, database_url, prepare_postgres_async
from lorry.schema import migrate
from serving.jobs.states import BatchState, DeliveryState
from serving.jobs.vault import prefix_of
from tests.support.extraction_jobs import (
    Engine,
    Mill,
    batch_settings,
    client,
    engine_url,
    gateway,
    gateway_settings,
    mill,
    registry_settings,
    registry_url,
    stand_in,
)
from tests.support.faulty_s3 import faulty_s3
from tests.support.registry_server import serving

__all__ = [
    "batch_settings",
    "client",
    "engine_url",
    "gateway",
    "gateway_settings",
    "mill",
    "registry_settings",
    "registry_url",
    "stand_in",
]
pytestmark = pytest.mark.faults
USERS = tuple(f"user-{number}" for number in range(6))
SECONDS = 120.0


async def require_everybody_once(mill: Mill, batch_id: str, *users: str) -> None:
    """Every user has exactly one result, and every result is readable."""
    lines = await mill.lines(batch_id)
    assert Counter(line["user_id"] for line in lines) == Counter(users)
    assert [line["sequence"] for line in lines] == list(range(1, len(users) + 1))
    assert [line["user_id"] for line in lines if line["profile"] is None] == []


def asked_of(mill: Mill, user: str) -> int:
    """How many requests the engine got about a user."""
    return mill.engine.asked.count(mill.versions[user])


@asynccontextmanager
async def locked(mill: Mill, query: str, batch_id: str) -> AsyncIterator[None]:
    """Hold the rows that a query finds while the block runs, so that whoever writes to them waits."""
    async with mill.database.transaction() as session:
        await session.execute(text(f"{query} for update"), {"id": batch_id})
        yield


async def somebody_waits(mill: Mill) -> bool:
    """Whether a session waits for a row that another one holds."""
    query = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    async with mill.database.reading() as session:
        return bool((await session.execute(text(query))).scalar_one())


async def test_a_worker_killed_while_it_plans_is_followed_by_one_that_goes_on(mill: Mill) -> None:
    await mill.add_users(*USERS)
    batch = await mill.submit(*USERS)
    async with locked(mill, "select 1 from extraction_batch_user where batch_id = :id", batch.id):
        mill.start("one", database_lock_timeout_seconds=60.0)
        await mill.until(lambda: somebody_waits(mill), what="the plan", seconds=SECONDS)
        mill.kill("one")
    assert (await mill.get(batch.id)).planned_at is None
    mill.start("two")
    await mill.until_ended(batch.id, seconds=SECONDS)
    await require_everybody_once(mill, batch.id, *USERS)


async def _alive(mill: Mill, worker_id: str) -> bool:
    return (await mill.workers()).get(worker_id) == "alive"


@pytest.mark.parametrize("successor", ["one", "two"])
async def test_a_worker_killed_while_it_asks_loses_nobody_and_only_who_was_in_hand_is_asked_again(
    mill: Mill, stand_in: Engine, successor: str
) -> None:
    await mill.add_users(*USERS)
    third = sorted(mill.versions.values())[2]
    stand_in.hold_at(third)
    batch = await mill.submit(*USERS)
    # A long lease: a worker that is slow here must not lose whom it has half asked. What is left of it is taken away.
    mill.start("one", extraction_users_at_once=1, extraction_lease_seconds=60.0)
    await mill.until(lambda: third in stand_in.asked, what="the third user", seconds=SECONDS)
    mill.kill("one")
    async with mill.database.transaction() as session:
        await session.execute(text("update extraction_worker set heard_at = heard_at - interval '1 hour'"))
    await mill.until(lambda: not stand_in.now[third], what="the end of what the dead worker asked", seconds=SECONDS)
    before = Counter(stand_in.asked)
    stand_in.refuses = lambda version_id: None
    stand_in.open.set()
    mill.start(successor, extraction_users_at_once=1, extraction_lease_seconds=60.0)
    await mill.until_ended(batch.id, seconds=SECONDS)
    await require_everybody_once(mill, batch.id, *USERS)
    each = max(Counter(stand_in.asked).values()) - before[third]
    for version_id in mill.versions.values():
        assert stand_in.asked.count(version_id) == each + (before[third] if version_id == third else 0)


async def test_a_worker_killed_while_it_puts_a_result_away_asks_nobody_again(
    mill: Mill, stand_in: Engine, storage_settings: StorageSettings, storage: ObjectStorage
) -> None:
    await mill.add_users("ann")
    batch = await mill.submit("ann")
    async with faulty_s3(storage_settings) as faulty:
        faulty.stall("PUT .*extractions", seconds=600)
        mill.start("one", s3_endpoint_url=faulty.settings.s3_endpoint_url)
        await mill.until(lambda: faulty.count("PUT .*extractions") == 1, what="the result", seconds=SECONDS)
        mill.kill("one")
        faulty.heal()
    asked = len(stand_in.asked)
    mill.start("two")
    await mill.until_ended(batch.id, seconds=SECONDS)
    await require_everybody_once(mill, batch.id, "ann")
    assert len(stand_in.asked) == asked
    assert len(await storage.list(prefix_of("default", "ann", batch.id))) == 1


async def test_a_worker_killed_while_it_writes_a_result_down_delivers_it_once(mill: Mill, stand_in: Engine) -> None:
    await mill.add_users("ann")
    stand_in.open.clear()
    batch = await mill.submit("ann")
    mill.start("one", database_lock_timeout_seconds=60.0)
    await mill.until(lambda: len(stand_in.asked) > 0, what="the question", seconds=SECONDS)
    async with locked(mill, "select 1 from extraction_batch where id = :id", batch.id):
        stand_in.open.set()
        await mill.until(lambda: _kept(mill, batch.id), what="the sealed result", seconds=SECONDS)
        await mill.until(lambda: somebody_waits(mill), what="its row", seconds=SECONDS)
        mill.kill("one")
    asked = len(stand_in.asked)
    mill.start("one")
    await mill.until_ended(batch.id, seconds=SECONDS)
    await require_everybody_once(mill, batch.id, "ann")
    assert len(stand_in.asked) == asked


async def _kept(mill: Mill, batch_id: str) -> bool:
    found = await ObjectStorage(mill.batch_settings).list(prefix_of("default", "ann", batch_id))
    return len(found) == 1


async def test_a_worker_killed_at_any_moment_brings_everybody_to_one_end(mill: Mill, stand_in: Engine) -> None:
    """Each life is a little longer than the one before, and ends wherever it is."""
    await mill.add_users(*USERS)
    stand_in.seconds_between_events = 0.3  # each answer takes so long
    batch = await mill.submit(*USERS)
    kills = 0
    for life in range(40):
        mill.start("one", extraction_users_at_once=2, extraction_crashes=100)
        await mill.until(lambda: _alive(mill, "one"), what="the worker", seconds=SECONDS)
        await asyncio.sleep(0.2 * 1.15**life)
        mill.kill("one")
        kills += 1
        if (await mill.get(batch.id)).ended:
            break
    ended = await mill.get(batch.id)
    assert (ended.state, ended.progress.done) == (BatchState.DONE, len(USERS))
    assert kills >= 3
    await require_everybody_once(mill, batch.id, *USERS)


async def test_a_worker_that_comes_back_after_its_users_were_adopted_delivers_nothing_twice(
    mill: Mill, stand_in: Engine
) -> None:
    await mill.add_users("ann", "bob")
    stand_in.open.clear()
    batch = await mill.submit("ann", "bob")
    frozen = mill.start("one", extraction_lease_seconds=1.0)
    await mill.until(lambda: len(set(stand_in.asked)) == 2, what="both in hand", seconds=SECONDS)
    frozen.send_signal(signal.SIGSTOP)  # as a machine that sleeps, or a network that is cut
    try:
        mill.start("two")
        before = len(stand_in.asked)
        await mill.until(lambda: len(stand_in.asked) > before, what="the adoption", seconds=SECONDS)
    finally:
        frozen.send_signal(signal.SIGCONT)
    stand_in.open.set()
    ended = await mill.until_ended(batch.id, seconds=SECONDS)
    assert ended.progress.done == 2
    await asyncio.sleep(1.0)
    await require_everybody_once(mill, batch.id, "ann", "bob")
    assert frozen.poll() is None, "it goes on as a worker"


async def test_a_worker_that_is_told_to_stop_ends_in_order_and_leaves_nobody_in_hand(
    mill: Mill, stand_in: Engine
) -> None:
    await mill.add_users(*USERS)
    stand_in.seconds_between_events = 0.05
    batch = await mill.submit(*USERS)
    patience = {"extraction_drain_seconds": 60.0, "extraction_lease_seconds": 60.0}
    process = mill.start("one", extraction_users_at_once=2, **patience)
    await mill.until(lambda: len(stand_in.asked) > 0, what="a question", seconds=SECONDS)
    process.terminate()
    assert await asyncio.to_thread(process.wait, 120) == 0
    found = (await mill.get(batch.id)).progress
    assert found.in_hand == 0
    assert found.done >= 1
    assert (await mill.workers())["one"] == "left"
    mill.start("two")
    await mill.until_ended(batch.id, seconds=SECONDS)
    await require_everybody_once(mill, batch.id, *USERS)


async def test_an_engine_that_is_gone_for_a_while_costs_time_and_nothing_else(mill: Mill) -> None:
    await mill.add_users(*USERS)
    batch = await mill.submit(*USERS)
    engine = Engine()
    engine.answer = mill.engine.answer
    async with serving(engine.app()) as url:
        engine.seconds_between_events = 0.05
        mill.start("one", engine_url=url, extraction_users_at_once=1, extraction_attempts=1)
        await mill.until(lambda: len(set(engine.asked)) > 1, what="the second user", seconds=SECONDS)
    delivered = (await mill.get(batch.id)).progress
    assert not (await mill.get(batch.id)).ended
    await asyncio.sleep(2.0)
    waiting = (await mill.get(batch.id)).progress
    assert (waiting.failed, waiting.done) == (0, waiting.done)
    assert waiting.done <= delivered.done + 1
    async with serving(engine.app(), port=urlsplit(url).port or 0):
        ended = await mill.until_ended(batch.id, seconds=SECONDS)
    assert (ended.progress.done, ended.progress.failed) == (len(USERS), 0)
    await require_everybody_once(mill, batch.id, *USERS)


# ----- webhooks


@dataclass
class Receiver:
    """A tenant's service that fails as it is told."""

    statuses: list[int] = field(default_factory=list)
    wait: asyncio.Event = field(default_factory=asyncio.Event)
    got: list[dict[str, Any]] = field(default_factory=list)

    def app(self) -> FastAPI:
        app = FastAPI()
        app.add_api_route("/hook", self.take, methods=["POST"], response_model=None)
        return app

    async def take(self, request: Request) -> Response:
        self.got.append({**json.loads(await request.body()), "attempt": request.headers["x-lorry-attempt"]})
        status = self.statuses.pop(0) if self.statuses else 200
        while status == 0 and not self.wait.is_set() and not await request.is_disconnected():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        return Response(status_code=status or 200)


async def until_delivered(mill: Mill, batch_id: str) -> None:
    async def delivered() -> bool:
        webhook = (await mill.get(batch_id)).webhook
        return webhook is not None and webhook.state is DeliveryState.DELIVERED

    await mill.until(delivered, what="the webhook", seconds=SECONDS)


async def test_a_receiver_that_fails_is_slow_and_then_closed_is_told_in_the_end(mill: Mill) -> None:
    await mill.add_users("ann")
    receiver = Receiver(statuses=[500, *[0] * 100])  # slow for as long as it is there
    try:
        async with serving(receiver.app()) as url:
            batch = await mill.submit("ann", webhook=f"{url}/hook")
            mill.start("one", extraction_webhook_timeout_seconds=1.0)
            await mill.until(lambda: len(receiver.got) >= 2, what="the second try", seconds=SECONDS)
            await mill.until(lambda: _problem(mill, batch.id, "longer than 1 s"), what="the time-out", seconds=SECONDS)
        receiver.statuses.clear()
        await mill.until(lambda: _problem(mill, batch.id, "ConnectError"), what="the refusal", seconds=SECONDS)
        async with serving(receiver.app(), port=urlsplit(url).port or 0):
            await until_delivered(mill, batch.id)
    finally:
        receiver.wait.set()
    assert {told["id"] for told in receiver.got} == {batch.id}
    assert (await mill.get(batch.id)).state is BatchState.DONE


async def _problem(mill: Mill, batch_id: str, what: str) -> bool:
    webhook = (await mill.get(batch_id)).webhook
    return webhook is not None and what in (webhook.problem or "")


async def test_a_worker_killed_while_it_tells_a_receiver_is_followed_by_one_that_tells_it(mill: Mill) -> None:
    await mill.add_users("ann")
    receiver = Receiver(statuses=[0])
    try:
        async with serving(receiver.app()) as url:
            batch = await mill.submit("ann", webhook=f"{url}/hook")
            mill.start("one")
            await mill.until(lambda: len(receiver.got) == 1, what="the message", seconds=SECONDS)
            mill.kill("one")
            async with mill.database.transaction() as session:  # the try's time is over
                await session.execute(text("update extraction_webhook set not_before = now()"))
            mill.start("two")
            await until_delivered(mill, batch.id)
    finally:
        receiver.wait.set()
    assert [told["attempt"] for told in receiver.got] == ["1", "2"]


# ----- the database


class OwnPostgres:
    """A PostgreSQL of one test's own, to be stopped and started again."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._running: RunningPart | None = None

    async def start(self) -> None:
        self._running = await start_part(self._part)
        await self._running.wait_until_healthy()

    async def stop(self) -> None:
        if self._running is not None:
            await self._running.stop()
            self._running = None


class TestADatabaseThatRestarts:
    """Everything of this test, its registry as well, is on a PostgreSQL of its own."""

    @pytest.fixture
    async def own_postgres(self, lasting_directory: Path) -> AsyncIterator[tuple[OwnPostgres, Path]]:
        directory = lasting_directory / "extraction-postgres"
        directory.mkdir()
        postgres = OwnPostgres(await prepare_postgres_async(directory, log_path=directory / "postgres.log"))
        await postgres.start()
        try:
            yield postgres, directory
        finally:
            await postgres.stop()

    @pytest.fixture
    async def database_settings(self, own_postgres: tuple[OwnPostgres, Path]) -> DatabaseSettings:
        from kit.database import Database

        _, directory = own_postgres
        await create_database(directory, name="own")
        settings = DatabaseSettings(database_url=database_url(directory, name="own"))
        database = Database(settings)
        await migrate(database)
        await database.close()
        return settings

    async def test_a_database_that_restarts_under_a_batch_loses_nobody(
        self, mill: Mill, stand_in: Engine, own_postgres: tuple[OwnPostgres, Path]
    ) -> None:
        postgres, _ = own_postgres
        await mill.add_users(*USERS)
        stand_in.seconds_between_events = 0.05
        batch = await mill.submit(*USERS)
        process: subprocess.Popen[bytes] = mill.start("one", extraction_users_at_once=2, extraction_attempts=1)
        await mill.until(lambda: len(set(stand_in.asked)) > 2, what="the third user", seconds=SECONDS)
        await postgres.stop()
        await asyncio.sleep(4.0)  # longer than the lease: the worker lets go of everybody
        assert process.poll() is None
        await postgres.start()
        ended = await mill.until_ended(batch.id, seconds=SECONDS)
        assert (ended.progress.done, ended.progress.failed) == (len(USERS), 0)
        await require_everybody_once(mill, batch.id, *USERS)
