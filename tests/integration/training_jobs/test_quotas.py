"""What a tenant may use, when many ask at once and when writing would cost more than is left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from kit.database import Database
from kit.errors import LorryError
from tests.support.claude_server import ClaudeServer
from tests.support.claude_writing import CLAUDE, serving_claude
from tests.support.training_jobs import Harbour, talks
from tests.support.writers import conversations
from training.jobs.dispatch import Quota
from training.jobs.errors import JobRequestInvalid, NothingToTrainOn, QuotaExhausted
from training.jobs.job import Job, Submission
from training.jobs.jobs import Jobs
from training.jobs.quotas.quotas import Quotas
from training.jobs.record.repository import RecordRepository
from training.jobs.states import Stage, State
from training.jobs.worker import Worker
from transcripts.store import TranscriptStore

Working = Callable[..., AbstractAsyncContextManager[Worker]]


async def add_users(database: Database, *users: str) -> None:
    async with database.transaction() as session:
        for user in users:
            await TranscriptStore(session).add("default", user, talks(user, count=2))


async def test_no_more_than_a_days_quota_is_taken_of_many_submissions_at_once(database: Database) -> None:
    users = [f"user-{number}" for number in range(10)]
    await add_users(database, *users)
    await Quotas(database).put("default", Quota(max_daily=3))

    async def submit(user: str) -> Job | LorryError:
        try:
            return await Jobs(database).submit(Submission(tenant="default", user=user, base="base"))
        except QuotaExhausted as exc:
            return exc

    found = await asyncio.gather(*map(submit, users))
    assert sum(isinstance(each, Job) for each in found) == 3
    assert len(await Jobs(database).list()) == 3


async def test_of_several_submissions_all_are_queued_or_none(database: Database) -> None:
    await add_users(database, "ann", "bob")
    jobs = Jobs(database)
    wanted = [Submission(tenant="default", user=user, base="base") for user in ("ann", "bob", "nobody")]
    with pytest.raises(NothingToTrainOn, match="nobody"):
        await jobs.submit_all(wanted)
    assert await jobs.list() == []
    assert [job.user_id for job in await jobs.submit_all(wanted[:2])] == ["ann", "bob"]


@pytest.mark.parametrize("limit", [{"max_running": -1}, {"max_monthly_dollars": float("nan")}])
async def test_a_quota_that_is_no_limit_is_refused_by_name(database: Database, limit: dict[str, float]) -> None:
    with pytest.raises(JobRequestInvalid) as refused:
        await Quotas(database).put("default", Quota(**limit))  # type: ignore[arg-type]
    assert refused.value.field in limit


async def test_a_writing_that_costs_more_than_is_left_of_the_month_is_refused_before_anything_is_bought(
    harbour: Harbour, working: Working
) -> None:
    claude = ClaudeServer()
    await harbour.add_user("ann", transcripts=conversations())
    await harbour.quotas.put("default", Quota(max_monthly_dollars=1e-6))
    async with serving_claude(harbour, claude, LORRY_WRITER_TIMEOUT_SECONDS="10"), working():
        job = await harbour.submit("ann", settings=CLAUDE)
        failed = await harbour.until(job.id)
    assert failed.state is State.FAILED
    assert failed.error is not None
    assert (failed.error["code"], failed.error["stage"]) == ("quota-exhausted", "estimate")
    assert (claude.created, sum(claude.paid.values())) == (0, 0)
    (row,) = await harbour.costs.sums(job_id=job.id, by="kind")
    assert (row["is_estimate"], row["of"]) == (True, "write")
    assert row["dollars"] > 1e-6


async def test_writings_that_are_estimated_at_once_share_what_is_left_of_the_month(
    harbour: Harbour, working: Working
) -> None:
    users = ("ann", "bob", "cid")
    server = ClaudeServer(looks=1_000_000)
    for user in users:
        await harbour.add_user(user, transcripts=conversations())
    async with serving_claude(harbour, server, LORRY_WRITER_POLL_SECONDS="0.1"):
        first = await harbour.submit("ann", settings=CLAUDE)
        async with working():
            await harbour.until_event(first.id, "stage finished", stage="estimate")
            (estimate,) = [each for each in await harbour.costs.sums(job_id=first.id) if each["is_estimate"]]
            await harbour.quotas.put("default", Quota(max_monthly_dollars=2.5 * estimate["dollars"]))
            rest = [await harbour.submit(user, settings=CLAUDE) for user in users[1:]]

            async def settled() -> bool:
                kinds = [await harbour.kinds(job.id) for job in rest]
                return all("failed" in each or "stage finished estimate" in each for each in kinds)

            await harbour.until_true(settled, what="two estimates")
            states = [(await harbour.jobs.get(job.id)).state for job in rest]
            for job in (first, *rest):
                if not (await harbour.jobs.get(job.id)).ended:
                    await harbour.jobs.cancel(job.id)
                await harbour.until(job.id)
    assert sorted(state is State.FAILED for state in states) == [False, True], "one of them was promised the rest"


async def test_a_model_without_a_price_is_refused_where_dollars_are_limited(harbour: Harbour, working: Working) -> None:
    await harbour.add_user("ann", transcripts=conversations())
    await harbour.quotas.put("default", Quota(max_monthly_dollars=100))
    server = ClaudeServer()
    async with serving_claude(harbour, server, LORRY_WRITER_MODEL="nobody-knows-its-price"):
        job = await harbour.submit("ann", settings=CLAUDE)
        async with working():
            failed = await harbour.until(job.id)
    assert failed.error is not None
    assert (failed.error["code"], failed.error["stage"]) == ("quota-exhausted", "estimate")
    assert "no price is known" in failed.error["message"]
    assert not server.paid


async def test_the_device_time_of_a_training_is_reckoned_by_those_of_its_base(
    harbour: Harbour, working: Working
) -> None:
    took = {"ann": (harbour.base, 20.0, 5.0), "bob": (harbour.base, 40.0, 7.0), "cid": ("another", 900.0, 800.0)}
    for user, (base, trained, evaluated) in took.items():
        await harbour.add_user(user)
        earlier = await harbour.submit(user, base=str(base))
        await harbour.jobs.cancel(earlier.id)
        async with harbour.database.transaction() as session:
            record = RecordRepository(session)
            await record.add_stage(earlier.id, Stage.TRAIN, result={"steps": 10, "seconds": trained}, seconds=1.0)
            await record.add_stage(earlier.id, Stage.EVALUATE, result={"evaluation": {}}, seconds=evaluated)
    await harbour.add_user("dan")
    await harbour.add_user("eve")
    async with working(LORRY_TRAINING_TRAINS="false"):
        jobs = [await harbour.submit("dan", steps=30), await harbour.submit("eve", base="yet another")]
        for job in jobs:
            await harbour.until_event(job.id, "stage finished", stage="estimate")
    known, unknown = [await harbour.costs.sums(job_id=job.id, by="kind") for job in jobs]
    estimated = {each["of"]: each["device_seconds"] for each in known if each["is_estimate"]}
    assert estimated == {"write": 0, "train": pytest.approx(90.0), "evaluate": pytest.approx(6.0)}
    assert {each["of"] for each in unknown} == {"write"}, "of a base that nobody was trained for, nothing is known"
