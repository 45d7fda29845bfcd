"""Jobs that are tried once more: by several people at once, and what the run before has cost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta

import pytest

from kit.database import Database
from registry.client import RegistryClient
from tests.support.registry_server import TOKEN
from tests.support.training_jobs import Harbour, staying_at, talks
from training.jobs.assignment import Assignment
from training.jobs.costs.costs import Costs
from training.jobs.costs.repository import CostRepository, cost_row
from training.jobs.errors import TrainingActive
from training.jobs.job import Job, Submission
from training.jobs.jobs import Jobs
from training.jobs.record.repository import RecordRepository
from training.jobs.repository import JobRepository
from training.jobs.states import STAGES, Phase, Stage, State
from training.jobs.worker import Worker
from training.jobs.writings.repository import WritingRepository
from training.writers.cost import FREE
from training.writers.writer import Written
from transcripts.store import TranscriptStore
from transcripts.transcript import Transcript

Working = Callable[..., AbstractAsyncContextManager[Worker]]
ANNS = Submission(tenant="default", user="ann", base="base")


async def ended_jobs(database: Database, *, count: int) -> list[Job]:
    """Return jobs of ann that were canceled."""
    async with database.transaction() as session:
        await TranscriptStore(session).add("default", "ann", talks("ann", count=2))
    jobs = Jobs(database)
    return [await jobs.cancel((await jobs.submit(ANNS)).id) for _ in range(count)]


async def test_of_many_retries_and_a_submission_at_once_one_wins_and_the_others_are_told_so(database: Database) -> None:
    ended = await ended_jobs(database, count=5)
    jobs = Jobs(database)
    asked = [*(jobs.retry(job.id) for job in ended), jobs.submit(ANNS)]
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(isinstance(each, Job) for each in found) == 1
    assert sum(isinstance(each, TrainingActive) for each in found) == len(asked) - 1
    assert sum(not job.ended for job in await jobs.list()) == 1


async def test_what_a_run_has_cost_stays_when_the_job_begins_anew(database: Database) -> None:
    (job,) = await ended_jobs(database, count=1)
    run = Assignment(
        job_id=job.id,
        run=1,
        tenant="default",
        user="ann",
        adapter="profile",
        base="base",
        settings={},
        phase=Phase.PREPARE,
    )

    async def spend() -> None:
        async with database.transaction() as session:
            await CostRepository(session).keep(cost_row(run, "write", is_estimate=False, dollars=2.0))

    for number, spent in enumerate((2.0, 4.0, 6.0), start=1):
        async with database.transaction() as session:
            await JobRepository(session).update(job.id, {"run": number})  # it was handed to a worker
        await spend()
        await spend()  # the same run, told twice
        for by in ("tenant", "job_id", "kind"):
            (found,) = await Costs(database).sums(by=by)
            assert (found["dollars"], found["of"]) == (spent, {"tenant": "default", "job_id": job.id}.get(by, "write"))
        async with database.transaction() as session:
            assert await CostRepository(session).spent_dollars("default") == spent
        await Jobs(database).retry(job.id)
        await Jobs(database).cancel(job.id)


@pytest.mark.parametrize("kept", [True, False])
async def test_a_failed_job_whose_questions_are_kept_no_longer_has_them_written_again(
    database: Database, kept: bool
) -> None:
    """Else it would train on what the offline writer makes of them, whoever was asked to write."""
    (job,) = await ended_jobs(database, count=1)
    async with database.transaction() as session:
        repository = JobRepository(session)
        await repository.update(job.id, {"state": State.FAILED})
        for stage in (*STAGES[Phase.PREPARE], Stage.DATASET):
            await RecordRepository(session).add_stage(job.id, stage, result={}, seconds=1.0)
        if kept:
            written = Written(writer="claude/1:model", examples=(), dropped=(), cost=FREE)
            await WritingRepository(session).keep(job.id, written=written.to_json())
    assert (await Jobs(database).retry(job.id)).phase is (Phase.TRAIN if kept else Phase.PREPARE)
    async with database.reading() as session:
        assert bool(await RecordRepository(session).stages(job.id)) is kept


async def paused_in_training(harbour: Harbour, working: Working) -> tuple[Job, Transcript]:
    """Return a job that waits in the middle of its training, and one of its transcripts; no worker is left."""
    (first, *_) = given = talks("ann")
    await harbour.add_user("ann", transcripts=given)
    with staying_at("ann", step=20):
        async with working():
            job = await harbour.submit("ann", steps=60)
            await harbour.until_true(lambda: harbour.has_checkpoint(job.id), what="a checkpoint")
            await harbour.jobs.pause(job.id)
            return await harbour.until(job.id, State.PAUSED), first


async def test_a_canceled_job_that_is_retried_trains_on_nothing_that_was_deleted_since(
    harbour: Harbour, working: Working
) -> None:
    """Its worker never tidied up, as one that is away does not."""
    job, deleted = await paused_in_training(harbour, working)
    assert harbour.leftovers(job.id)
    await harbour.jobs.cancel(job.id)
    async with harbour.database.transaction() as session:
        await TranscriptStore(session).delete("default", "ann", deleted.id)
    await harbour.jobs.retry(job.id)
    async with working(LORRY_TRAINING_UPKEEP_SECONDS="600"):
        ended = await harbour.until(job.id)
    assert ended.outcome is not None, ended.error
    async with RegistryClient(url=harbour.registry_url, token=TOKEN, actor="test") as registry:
        manifest = (await registry.get_version(ended.outcome["version_id"])).manifest
    assert deleted.id not in manifest.lineage.transcript_ids
    assert manifest.lineage.transcript_ids


async def test_what_lies_on_disk_of_an_earlier_beginning_is_removed_while_the_job_goes_on(
    harbour: Harbour, working: Working
) -> None:
    job, _ = await paused_in_training(harbour, working)
    folder = harbour.directory / "training" / "jobs" / job.id
    (going_on,) = folder.iterdir()
    earlier = folder / ("0" * 32)
    earlier.mkdir()
    async with working():

        async def removed() -> bool:
            return not earlier.exists()

        await harbour.until_true(removed, what="the earlier beginning removed", seconds=60)
    assert list(going_on.iterdir())


async def test_nothing_that_was_written_for_a_canceled_job_is_used_when_it_is_retried(database: Database) -> None:
    (job,) = await ended_jobs(database, count=1)
    async with database.transaction() as session:
        written = Written(writer="claude/1:model", examples=(), dropped=(), cost=FREE)
        await WritingRepository(session).keep(job.id, written=written.to_json())
    await Jobs(database).retry(job.id)
    async with database.reading() as session:
        writings = WritingRepository(session)
        assert await writings.written(job.id) is None
        assert await writings.is_given_up(job.id)


@pytest.mark.parametrize("written", [True, False])
async def test_a_failed_job_that_has_nothing_written_yet_is_reckoned_again(database: Database, written: bool) -> None:
    """The month that paid for it then may be used up now."""
    (job,) = await ended_jobs(database, count=1)
    async with database.transaction() as session:
        await JobRepository(session).update(job.id, {"state": State.FAILED})
        for stage in STAGES[Phase.PREPARE] if written else (Stage.SNAPSHOT, Stage.ESTIMATE):
            await RecordRepository(session).add_stage(job.id, stage, result={}, seconds=1.0)
        kept = Written(writer="claude/1:model", examples=(), dropped=(), cost=FREE)
        await WritingRepository(session).keep(job.id, written=kept.to_json() if written else None)
    await Jobs(database).retry(job.id)
    async with database.reading() as session:
        stages = await RecordRepository(session).stages(job.id)
    assert set(stages) == (set(STAGES[Phase.PREPARE]) if written else {Stage.SNAPSHOT})


async def test_jobs_whose_transcripts_were_deleted_are_found_among_any_number(database: Database) -> None:
    jobs, users = Jobs(database), [f"user{number}" for number in range(6)]
    failed_before = datetime.now(UTC) - timedelta(days=7)
    submitted = {}
    async with database.transaction() as session:
        store, repository, record = TranscriptStore(session), JobRepository(session), RecordRepository(session)
        for user in users:
            given = talks(user, count=3)
            await store.add("default", user, given)
            job = await jobs.submit_in(session, Submission(tenant="default", user=user, base="base"))
            ids = [each.id for each in given]
            await record.add_stage(job.id, Stage.SNAPSHOT, result={"transcript_ids": ids}, seconds=1.0)
            await repository.update(job.id, {"started_at": datetime.now(UTC)})
            submitted[user] = job.id
            if user != "user0":
                await store.delete("default", user, ids[1])
        lately, long_ago = datetime.now(UTC), failed_before - timedelta(hours=1)
        await repository.update(submitted["user2"], {"state": State.PAUSED})
        await repository.update(submitted["user3"], {"state": State.FAILED, "ended_at": lately})
        await repository.update(submitted["user4"], {"state": State.FAILED, "ended_at": long_ago})
        await repository.update(submitted["user5"], {"state": State.RUNNING})
        found = {row.user_id for row in await repository.bereft(failed_before=failed_before)}
        (one,) = await repository.bereft(failed_before=failed_before, limit=1)
    assert found == {"user1", "user2", "user3"}
    assert one.user_id in found
