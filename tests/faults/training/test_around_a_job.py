"""What happens to a job when something else fails: its user, its transcripts, its database."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.database import Database
from kit.settings import DatabaseSettings
from lorry.local.part import start_part
from lorry.local.postgres import create_database, database_url, prepare_postgres_async
from lorry.schema import migrate
from registry.client import RegistryClient
from tests.support.registry_server import TOKEN
from tests.support.training_jobs import Harbour
from training.jobs.states import State
from transcripts.store import TranscriptStore

pytestmark = pytest.mark.faults
ENDED_WELL = {State.SUCCEEDED, State.REJECTED}


async def test_a_loss_that_is_no_number_fails_that_user_and_the_others_go_on(harbour: Harbour) -> None:
    for user in ("ann", "bob"):
        await harbour.add_user(user)
    ann = await harbour.submit("ann", priority=5, settings={"alpha": 1e38, "learning_rate": 0.9})
    bob = await harbour.submit("bob")
    harbour.start("one")
    failed = await harbour.until(ann.id)
    assert failed.state is State.FAILED
    assert failed.error is not None
    assert failed.error["code"] == "loss-not-finite"
    assert failed.attempts == 1, "the same inputs give the same loss: nothing is gained by another attempt"
    assert (await harbour.until(bob.id)).state in ENDED_WELL


async def test_transcripts_erased_during_the_training_end_it_and_nothing_is_left(harbour: Harbour) -> None:
    await harbour.add_user("ann")
    job = await harbour.submit("ann", steps=100_000)
    harbour.start("one")
    await harbour.until_event(job.id, "stage began", stage="train")
    async with harbour.database.transaction() as session:
        await TranscriptStore(session).delete("default", "ann")
    ended = await harbour.until(job.id)
    assert ended.state is State.CANCELED
    assert ended.error is not None
    assert ended.error["code"] == "transcripts-erased"

    async def nothing_left() -> bool:
        return harbour.leftovers(job.id) == []

    await harbour.until_true(nothing_left, what="an empty folder")
    async with RegistryClient(url=harbour.registry_url, token=TOKEN) as registry:
        page = await registry.list_adapters("default", "ann")
    assert page.adapters == ()


async def test_a_job_survives_a_restart_of_the_database(
    harbour: Harbour, lasting_directory: Path, request: pytest.FixtureRequest
) -> None:
    directory = lasting_directory / "own-postgres"
    directory.mkdir()
    part = await prepare_postgres_async(directory, log_path=directory / "postgres.log")
    running = await start_part(part)
    await running.wait_until_healthy()
    try:
        await create_database(directory, name="jobs")
        settings = DatabaseSettings(database_url=database_url(directory, name="jobs"))
        own = Database(settings)
        await migrate(own)
        there = Harbour(
            database_settings=settings,
            database=own,
            registry_url=harbour.registry_url,
            base=harbour.base,
            directory=harbour.directory,
            nursery=harbour.nursery,
        )
        request.addfinalizer(there.close)
        await there.add_user("ann")
        job = await there.submit("ann", steps=200)
        there.start("one")
        await there.until_event(job.id, "stage began", stage="train")
        await running.stop()
        running = await start_part(part)
        await running.wait_until_healthy()
        ended = await there.until(job.id)
        assert ended.state in ENDED_WELL, ended.error
        finished = [each for each in await there.kinds(job.id) if each == "stage finished train"]
        assert len(finished) == 1
        there.close()
        await own.close()
    finally:
        await running.stop()
