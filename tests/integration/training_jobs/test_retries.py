"""Jobs that are tried once more: by several people at once, and what the run before has cost."""

from __future__ import annotations

import asyncio

import pytest

from kit.database import Database
from tests.support.training_jobs import talks
from training.jobs.assignment import Assignment
from training.jobs.costs.costs import Costs
from training.jobs.costs.repository import CostRepository, cost_row
from training.jobs.errors import TrainingActive
from training.jobs.job import Job, Submission
from training.jobs.jobs import Jobs
from training.jobs.record.repository import RecordRepository
from training.jobs.repository import JobRepository
from training.jobs.states import STAGES, Phase, Stage, State
from training.jobs.writings.repository import WritingRepository
from training.writers.cost import FREE
from training.writers.writer import Written
from transcripts.store import TranscriptStore

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
