"""Triggers with a real database: who is submitted without anybody asking, and who is left alone."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kit.database import Database
from tests.support.training_jobs import talks
from training.jobs.dispatch import Quota
from training.jobs.job import Job, Submission
from training.jobs.jobs import Jobs
from training.jobs.models import RulesRow
from training.jobs.quotas.quotas import Quotas
from training.jobs.repository import JobRepository
from training.jobs.staleness import Rules
from training.jobs.states import State, Trigger
from training.jobs.triggers.repository import RulesRepository, TrainedRepository
from training.jobs.triggers.tenant_rules import TenantRules
from training.jobs.triggers.triggers import Triggers
from transcripts.store import TranscriptStore
from transcripts.transcript import Transcript, Turn

BASE = "the-base"
SILENT = Rules(enabled=True, min_words=10, new_words=None, max_age_days=None)


async def add_user(database: Database, user: str) -> int:
    """Store a user's transcripts and return how many own words they hold."""
    async with database.transaction() as session:
        await TranscriptStore(session).add("default", user, talks(user))
        return (await TranscriptStore(session).summary("default", user)).user_words


async def remember(database: Database, user: str, *, words: int, days_ago: float, base: str = BASE) -> None:
    """Have the user trained so long ago on so many words."""
    values = {
        "tenant": "default",
        "user_id": user,
        "adapter": "profile",
        "words": words,
        "base": base,
        "job_id": "j" + 32 * "0",
        "version_id": "v" + 32 * "0",
        "trained_at": datetime.now(UTC) - timedelta(days=days_ago),
    }
    async with database.transaction() as session:
        await TrainedRepository(session).keep(values)


async def pulled(database: Database, rules: Rules) -> list[Job]:
    """Return what these rules have submitted in one look."""
    await TenantRules(database).put("default", rules)
    count = await Triggers(database, base=BASE).pull()
    jobs = await Jobs(database).list(tenant="default")
    assert len(jobs) == count
    return jobs


@pytest.mark.parametrize(
    ("rules", "trained", "trigger", "why"),
    [
        ({"new_words": 50}, {"words": -60, "days_ago": 1}, Trigger.VOLUME, "60 own words since"),
        ({"max_age_days": 30}, {"words": -1, "days_ago": 31}, Trigger.AGE, "31 days old"),
        ({"schedule": "* * * * *"}, {"words": -1, "days_ago": 1}, Trigger.SCHEDULE, "scheduled for"),
        ({"base_change": True}, {"words": 0, "days_ago": 1, "base": "old"}, Trigger.BASE, "trained for old"),
    ],
)
async def test_each_rule_submits_who_it_is_about_with_the_reason_and_nobody_else(
    database: Database, rules: dict[str, Any], trained: dict[str, Any], trigger: Trigger, why: str
) -> None:
    words = {user: await add_user(database, user) for user in ("ann", "bob")}
    await remember(database, "ann", **{**trained, "words": words["ann"] + trained["words"]})
    await remember(database, "bob", words=words["bob"], days_ago=0)
    asked = Rules(**{**vars(SILENT), "priority": 7, **rules})
    stale = {each.user: each.due for each in await TenantRules(database).staleness("default", base=BASE, rules=asked)}
    assert stale["ann"] is not None
    assert why in stale["ann"].reason
    assert stale["bob"] is None
    (job,) = await pulled(database, asked)
    assert (job.user_id, job.trigger, job.priority, job.base) == ("ann", trigger, 7, BASE)
    assert why in job.why
    (now, _) = await TenantRules(database).staleness("default", base=BASE)
    assert (now.user, now.active_job) == ("ann", job.id)


async def test_of_a_conversation_that_went_on_only_what_was_added_makes_its_user_due(database: Database) -> None:
    """Imported every night, it is a new transcript every night."""

    async def stored(length: int) -> int:
        turns = tuple(Turn(role="user" if n % 2 else "other", text=f"{n} " + "word " * 19) for n in range(length))
        async with database.transaction() as session:
            store = TranscriptStore(session)
            await store.add("default", "ann", [Transcript(turns=turns, source_format="chatgpt")])
            return (await store.summary("default", "ann")).user_words

    rules = replace(SILENT, new_words=50, new_share=0)
    await remember(database, "ann", words=await stored(100), days_ago=1)
    for length in (99, 101, 103, 105):
        await stored(length)
        assert await pulled(database, rules) == []
    await stored(107)
    (job,) = await pulled(database, rules)
    assert "60 own words since" in job.why


async def test_of_many_workers_one_submits_and_nobody_is_submitted_twice(database: Database) -> None:
    users = [f"user-{number}" for number in range(5)]
    for user in users:
        await add_user(database, user)
    await TenantRules(database).put("default", SILENT)
    counts = await asyncio.gather(*(Triggers(database, base=BASE).pull() for _ in range(6)))
    assert sum(counts) == 5
    assert sorted(job.user_id for job in await Jobs(database).list()) == users
    assert await Triggers(database, base=BASE).pull() == 0, "they are in training"


async def test_a_tenants_day_holds_back_what_is_due_until_another(database: Database) -> None:
    for user in ("ann", "bob", "cid"):
        await add_user(database, user)
    await Quotas(database).put("default", Quota(max_daily=2))
    assert len(await pulled(database, SILENT)) == 2
    await Quotas(database).put("default", Quota(max_daily=3))
    assert await Triggers(database, base=BASE).pull() == 1


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELED])
async def test_who_failed_or_was_canceled_is_left_alone_for_a_day(database: Database, state: State) -> None:
    await add_user(database, "ann")
    job = await Jobs(database).submit(Submission(tenant="default", user="ann", base=BASE))

    async def ended(hours_ago: float) -> None:
        async with database.transaction() as session:
            at = await JobRepository(session).now() - timedelta(hours=hours_ago)
            await JobRepository(session).update(job.id, {"state": state, "ended_at": at})

    await ended(23)
    await TenantRules(database).put("default", SILENT)
    assert await Triggers(database, base=BASE).pull() == 0
    await ended(25)
    assert await Triggers(database, base=BASE).pull() == 1


async def test_what_rules_submit_has_their_settings(database: Database) -> None:
    await add_user(database, "ann")
    (job,) = await pulled(database, replace(SILENT, settings={"start": "shared/common", "steps": 9}))
    assert job.settings == {"start": "shared/common", "steps": 9}


async def test_rules_that_an_upgrade_made_unfit_hold_back_their_own_tenant_and_nobody_else(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    await add_user(database, "ann")
    async with database.transaction() as session:
        await TranscriptStore(session).add("other", "zoe", talks("zoe"))
        await RulesRepository(session).put("default", replace(SILENT, settings={"of_yesterday": 1}))
    await TenantRules(database).put("other", SILENT)
    assert await Triggers(database, base=BASE).pull() == 1
    assert [job.user_id for job in await Jobs(database).list()] == ["zoe"]
    assert "rules cannot be followed" in caplog.text
    assert "of_yesterday" in caplog.text


async def test_rules_are_read_as_far_as_they_are_known_and_without_settings_are_as_they_were(
    database: Database,
) -> None:
    """A release that is rolled back leaves what it wrote to the one before it, and the other way round."""
    await TenantRules(database).put("default", SILENT)
    async with database.transaction() as session:
        row = await session.get(RulesRow, "default")
        assert row is not None
        assert "settings" not in row.rules
        row.rules = {**row.rules, "of_tomorrow": 1}
    assert await TenantRules(database).get("default") == SILENT
    async with database.reading() as session:
        assert await RulesRepository(session).all() == {"default": SILENT}


async def test_rules_that_are_not_enabled_submit_nobody(database: Database) -> None:
    await add_user(database, "ann")
    assert await pulled(database, Rules(min_words=1)) == []


async def test_nothing_is_remembered_of_a_user_whose_transcripts_are_erased(database: Database) -> None:
    for user in ("ann", "bob"):
        await remember(database, user, words=await add_user(database, user), days_ago=1)
    async with database.transaction() as session:
        await TranscriptStore(session).delete("default", "ann")
        assert await TrainedRepository(session).forget_erased() == 1
        assert list(await TrainedRepository(session).all(tenant="default", adapter="profile")) == ["bob"]
