"""Campaigns with a real database and no worker: their rate, and what people do to them."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from kit.database import Database
from tests.support.training_jobs import talks
from training.jobs.campaigns.campaigns import Campaign, Campaigns
from training.jobs.campaigns.repository import CampaignRepository
from training.jobs.dispatch import Quota
from training.jobs.errors import IllegalJobTransition, JobRequestInvalid, TrainingActive
from training.jobs.job import Submission
from training.jobs.jobs import Jobs
from training.jobs.quotas.quotas import Quotas
from training.jobs.repository import JobRepository
from training.jobs.states import State, Trigger
from transcripts.store import TranscriptStore

USERS = ("ann", "bob", "cid")
PER_HOUR = 60.0


@pytest.fixture
async def campaigns(database: Database) -> Campaigns:
    """Three users have transcripts."""
    async with database.transaction() as session:
        for user in USERS:
            await TranscriptStore(session).add("default", user, talks(user, count=2))
    return Campaigns(database)


async def begin(campaigns: Campaigns, *, per_hour: float = PER_HOUR) -> Campaign:
    return await campaigns.begin("default", base="next", known={"next"}, per_hour=per_hour, settings={"steps": 3})


async def let_pass(database: Database, campaign: Campaign, *, seconds: float) -> None:
    """Let time pass since the campaign's last submission."""
    async with database.transaction() as session:
        repository = CampaignRepository(session)
        for job in await Jobs(database).list(campaign_id=campaign.id):
            at = await JobRepository(session).now() - timedelta(seconds=seconds)
            await repository.set_user(campaign.id, job.user_id, {"submitted_at": at})


async def end(database: Database, job_id: str, state: State) -> None:
    async with database.transaction() as session:
        repository = JobRepository(session)
        await repository.update(job_id, {"state": state, "ended_at": await repository.now()})


async def test_jobs_begin_at_the_campaigns_rate_in_the_background(campaigns: Campaigns, database: Database) -> None:
    campaign = await begin(campaigns)
    assert campaign.eta_seconds == 180
    assert [await campaigns.advance() for _ in range(3)] == [1, 0, 0], "one a minute"
    await let_pass(database, campaign, seconds=59)
    assert await campaigns.advance() == 0
    await let_pass(database, campaign, seconds=61)
    assert await campaigns.advance() == 1
    jobs = await Jobs(database).list(campaign_id=campaign.id)
    assert {(job.trigger, job.priority, job.base, job.settings["steps"]) for job in jobs} == {
        (Trigger.CAMPAIGN, -100, "next", 3)
    }
    found = await campaigns.get(campaign.id)
    assert (found.counts, found.done, found.users, found.eta_seconds) == ({"queued": 2, "waiting": 1}, 0, 3, 60)


async def test_several_workers_keep_to_one_rate(campaigns: Campaigns, database: Database) -> None:
    await begin(campaigns)
    assert sum(await asyncio.gather(*(Campaigns(database).advance() for _ in range(6)))) == 1


async def test_a_paused_campaign_begins_nothing_and_a_resumed_one_goes_on(
    campaigns: Campaigns, database: Database
) -> None:
    campaign = await begin(campaigns)
    await campaigns.advance()
    await campaigns.pause(campaign.id)
    await let_pass(database, campaign, seconds=3600)
    assert await campaigns.advance() == 0
    assert (await campaigns.get(campaign.id)).eta_seconds is None
    (job,) = await Jobs(database).list(campaign_id=campaign.id)
    assert job.state is State.QUEUED, "what was submitted goes on"
    await campaigns.resume(campaign.id)
    assert await campaigns.advance() == 2, "two minutes' worth at most, however long it stood still"


async def test_an_aborted_campaign_cancels_its_jobs_and_no_others(campaigns: Campaigns, database: Database) -> None:
    campaign = await begin(campaigns)
    other = await Jobs(database).submit(Submission(tenant="default", user="cid", base="old"))
    await campaigns.advance()
    aborted = await campaigns.abort(campaign.id)
    assert (aborted.state, aborted.counts) == ("aborted", {"canceled": 1, "waiting": 2})
    assert (await Jobs(database).get(other.id)).state is State.QUEUED
    assert await campaigns.advance() == 0
    with pytest.raises(IllegalJobTransition, match="aborted"):
        await campaigns.resume(campaign.id)


async def test_who_is_in_training_keeps_their_place_and_who_was_erased_is_skipped(
    campaigns: Campaigns, database: Database
) -> None:
    busy = await Jobs(database).submit(Submission(tenant="default", user="ann", base="old"))
    campaign = await begin(campaigns, per_hour=100_000)
    async with database.transaction() as session:
        await TranscriptStore(session).delete("default", "bob")
    assert await campaigns.advance() == 1
    (job,) = await Jobs(database).list(campaign_id=campaign.id)
    assert job.user_id == "cid"
    assert (await campaigns.get(campaign.id)).counts == {"queued": 1, "skipped": 1, "waiting": 1}
    await end(database, job.id, State.SUCCEEDED)
    await Jobs(database).cancel(busy.id)
    await let_pass(database, campaign, seconds=60)
    assert await campaigns.advance() == 1
    assert (await campaigns.get(campaign.id)).state == "running", "ann's turn is not over"
    (anns,) = await Jobs(database).list(campaign_id=campaign.id, user="ann")
    await end(database, anns.id, State.REJECTED)
    assert (await campaigns.get(campaign.id)).state == "done", "also before a worker has written it down"
    await campaigns.advance()
    done = await campaigns.get(campaign.id)
    assert (done.state, done.counts) == ("done", {"rejected": 1, "skipped": 1, "succeeded": 1})
    assert done.ended_at is not None


async def test_a_campaign_uses_up_nobodys_day(campaigns: Campaigns, database: Database) -> None:
    await Quotas(database).put("default", Quota(max_daily=1))
    await begin(campaigns, per_hour=100_000)
    await campaigns.advance()
    jobs = Jobs(database)
    for job in await jobs.list():
        await jobs.cancel(job.id)
    assert (await jobs.submit(Submission(tenant="default", user="ann", base="old"))).state is State.QUEUED


async def test_a_campaign_holds_nobody_to_two_trainings_at_once(campaigns: Campaigns, database: Database) -> None:
    await begin(campaigns, per_hour=100_000)
    assert await campaigns.advance() >= 1
    with pytest.raises(TrainingActive):
        await Jobs(database).submit(Submission(tenant="default", user="ann", base="old", adapter="another"))


@pytest.mark.parametrize("per_hour", [0.0, -1.0, float("nan"), float("inf"), 1e6])
async def test_a_rate_that_cannot_be_kept_is_refused(campaigns: Campaigns, per_hour: float) -> None:
    with pytest.raises(JobRequestInvalid, match="per_hour"):
        await begin(campaigns, per_hour=per_hour)


async def test_many_who_are_in_training_keep_nobody_else_from_their_turn(
    campaigns: Campaigns, database: Database
) -> None:
    busy = [f"aa-{number:02d}" for number in range(60)]
    async with database.transaction() as session:
        for user in busy:
            await TranscriptStore(session).add("default", user, talks(user, count=1))
    jobs = Jobs(database)
    for user in busy:
        await jobs.pause((await jobs.submit(Submission(tenant="default", user=user, base="old"))).id)
    campaign = await begin(campaigns)
    assert await campaigns.advance() == 1
    (job,) = await jobs.list(campaign_id=campaign.id)
    assert job.user_id == "ann"


async def test_an_abort_that_was_cut_short_is_finished_by_another(campaigns: Campaigns, database: Database) -> None:
    campaign = await begin(campaigns)
    await campaigns.advance()
    async with database.transaction() as session:  # the process ended here
        await CampaignRepository(session).set_state(campaign.id, "aborted", ended=True)
    (job,) = await Jobs(database).list(campaign_id=campaign.id)
    assert job.state is State.QUEUED
    ended_at = (await campaigns.get(campaign.id)).ended_at
    aborted = await campaigns.abort(campaign.id)
    assert (aborted.counts, aborted.ended_at) == ({"canceled": 1, "waiting": 2}, ended_at)


@pytest.mark.parametrize("base", ["nxt", "/models/nxt", "/models/next/"])
async def test_only_a_base_that_somebody_registered_is_trained_for(campaigns: Campaigns, base: str) -> None:
    known = {"next", "smollm2-135m-instruct"}
    if base == "/models/next/":
        assert (await campaigns.begin("default", base=base, known=known)).state == "running"
        return
    with pytest.raises(JobRequestInvalid, match="no base model 'nxt' is registered; known are next, smollm2") as caught:
        await campaigns.begin("default", base=base, known=known)
    assert (caught.value.field, caught.value.details["known"]) == ("base", sorted(known))
    assert await campaigns.list() == []
