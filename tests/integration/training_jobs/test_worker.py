"""A worker with a real database, registry, trainer and evaluator, on a base of two layers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from kit.background import FAILURES
from registry.client import RegistryClient
from registry.manifest import Owner
from tests.support.nursery import Forked
from tests.support.registry_server import TOKEN
from tests.support.training_jobs import ENDED, SETTINGS, Harbour, make_tiny_base, staying_at, talks, works
from tests.support.waiting import until
from training.jobs.campaigns.campaigns import Campaigns
from training.jobs.dispatch import Quota
from training.jobs.durable import DurableQueue
from training.jobs.record.repository import RecordRepository
from training.jobs.staleness import Rules
from training.jobs.states import Stage, State, Trigger
from training.jobs.worker import Worker
from training.jobs.writings.repository import WritingRepository
from transcripts.store import TranscriptStore

Working = Callable[..., AbstractAsyncContextManager[Worker]]
_LETS_PASS = {"gate.min_gain_nats": -100.0, "gate.max_general_loss": 100.0, "gate.max_verbatim_tokens": 10_000}


async def test_a_job_goes_from_transcripts_to_a_version_and_leaves_nothing_behind(
    harbour: Harbour, working: Working
) -> None:
    await harbour.add_user("ann")
    job = await harbour.submit("ann", steps=6, settings={"dataset.canaries": 2})
    async with working():
        ended = await harbour.until(job.id)
    assert ended.state in {State.SUCCEEDED, State.REJECTED}, ended.error
    assert ended.outcome is not None
    async with RegistryClient(url=harbour.registry_url, token=TOKEN) as registry:
        manifest = (await registry.get_version(ended.outcome["version_id"])).manifest
        live = await registry.get_alias(Owner(tenant="default", user="ann"), "profile", "live")
    assert manifest.owner.user == "ann"
    assert manifest.evaluation["leaks"]["canaries"] == 2
    assert (live == manifest.version_id) is ended.outcome["passed"]
    assert harbour.leftovers(job.id) == []
    dataset = await harbour.jobs.dataset(job.id)
    assert dataset is not None
    quality = dataset["quality"]
    assert dataset["digest"] == manifest.lineage.dataset_digest
    assert quality["kept"] == dataset["counts"]["train"]
    assert sum(quality["nats"].values()) + quality["unscored"] == quality["kept"], "the base was asked about each"
    assert "sailor" not in json.dumps(dataset)
    assert await harbour.kinds(job.id) == [
        "submitted",
        "taken",
        *("stage began snapshot", "stage finished snapshot", "stage began estimate", "stage finished estimate"),
        *("stage began write", "stage finished write", "prepared", "taken"),
        *("stage began dataset", "stage finished dataset", "stage began train", "stage finished train"),
        *("stage began evaluate", "stage finished evaluate", "stage began publish", "stage finished publish"),
        ended.state.value,
    ]


async def test_a_training_is_paused_at_a_step_resumed_from_its_checkpoint_and_gives_the_same_adapter(
    harbour: Harbour, working: Working
) -> None:
    await harbour.add_user("ann")
    async with working():
        straight = await harbour.until((await harbour.submit("ann", steps=60)).id)
        with staying_at("ann", step=20):
            job = await harbour.submit("ann", steps=60)
            await harbour.until_true(lambda: harbour.has_checkpoint(job.id), what="a checkpoint")
            await harbour.jobs.pause(job.id)
            paused = await harbour.until(job.id, State.PAUSED, *ENDED)
        assert paused.state is State.PAUSED
        assert paused.worker_id is None
        assert harbour.leftovers(job.id)
        costs = {(each["of"], each["is_estimate"]): each for each in await harbour.costs.sums(job_id=job.id, by="kind")}
        assert costs["train", True]["device_seconds"] > 0, "reckoned before, from the job before"
        assert costs["evaluate", True]["device_seconds"] > 0
        assert costs["train", False]["device_seconds"] > 0, "counted although it has not ended"
        await harbour.jobs.resume(job.id)
        resumed = await harbour.until(job.id)
    assert straight.outcome is not None
    assert resumed.outcome is not None
    whole = {each["of"]: each for each in await harbour.costs.sums(job_id=job.id, by="kind") if not each["is_estimate"]}
    assert whole["train"]["device_seconds"] > costs["train", False]["device_seconds"]
    assert whole["train"]["trained_tokens"] > 0
    async with RegistryClient(url=harbour.registry_url, token=TOKEN) as registry:
        one = (await registry.get_version(straight.outcome["version_id"])).manifest
        two = (await registry.get_version(resumed.outcome["version_id"])).manifest
    assert [each.sha256 for each in one.files] == [each.sha256 for each in two.files]
    kinds = await harbour.kinds(job.id)
    assert kinds.count("stage finished dataset") == 1
    assert kinds.count("stage finished train") == 1


async def test_a_dataset_whose_report_was_cut_off_is_built_again(harbour: Harbour, working: Working) -> None:
    await harbour.add_user("ann")
    async with working():
        with staying_at("ann", step=20):
            job = await harbour.submit("ann", steps=60)
            await harbour.until_true(lambda: harbour.has_checkpoint(job.id), what="a checkpoint")
            await harbour.jobs.pause(job.id)
            assert (await harbour.until(job.id, State.PAUSED, *ENDED)).state is State.PAUSED
        before = await harbour.jobs.dataset(job.id)
        (report,) = (each for each in harbour.leftovers(job.id) if each.name == "quality.json")
        report.write_text("{")
        async with harbour.database.transaction() as session:
            await RecordRepository(session).forget_stages(job.id, Stage.DATASET)  # as if killed before it was kept
        await harbour.jobs.resume(job.id)
        ended = await harbour.until(job.id)
    assert ended.state in {State.SUCCEEDED, State.REJECTED}, ended.error
    assert await harbour.jobs.dataset(job.id) == before


async def test_a_running_job_is_canceled_and_leaves_nothing(harbour: Harbour, working: Working) -> None:
    await harbour.add_user("ann")
    async with working():
        job = await harbour.submit("ann", steps=100_000)
        await harbour.until_event(job.id, "stage began", stage="train")
        assert (await harbour.jobs.cancel(job.id)).state is State.RUNNING
        assert (await harbour.until(job.id)).state is State.CANCELED
        await harbour.until_true(lambda: _nothing_of(harbour, job.id), what="nothing left")
    async with RegistryClient(url=harbour.registry_url, token=TOKEN) as registry:
        assert (await registry.list_adapters("default", "ann")).adapters == ()


async def test_a_lasting_failure_names_the_reason_and_a_retry_keeps_what_was_done(
    harbour: Harbour, working: Working
) -> None:
    await harbour.add_user("ann", transcripts=talks("ann", count=1))
    async with working():
        job = await harbour.submit("ann")
        failed = await harbour.until(job.id)
        assert failed.state is State.FAILED
        assert failed.error is not None
        assert (failed.error["code"], failed.error["stage"]) == ("dataset-too-small", "dataset")
        await harbour.jobs.retry(job.id)
        again = await harbour.until(job.id)
        assert again.state is State.FAILED
    kinds = await harbour.kinds(job.id)
    assert kinds.count("stage finished snapshot") == 1
    assert kinds.count("stage began dataset") == 2


async def test_transcripts_erased_while_a_failed_job_waits_for_a_retry_leave_nothing_of_it(
    harbour: Harbour, working: Working
) -> None:
    async def written(job_id: str) -> bool:
        async with harbour.database.reading() as session:
            return await WritingRepository(session).written(job_id) is not None

    await harbour.add_user("ann", transcripts=talks("ann", count=1))
    async with working():
        job = await harbour.submit("ann")
        assert (await harbour.until(job.id)).state is State.FAILED
        assert await written(job.id), "kept for a retry"
        async with harbour.database.transaction() as session:
            await TranscriptStore(session).delete("default", "ann")
        ended = await harbour.until(job.id, State.CANCELED)
        await harbour.until_true(lambda: _nothing_of(harbour, job.id), what="an empty folder")

        async def forgotten() -> bool:
            return not await written(job.id)

        await harbour.until_true(forgotten, what="nothing written left")
    assert ended.error is not None
    assert ended.error["code"] == "transcripts-erased"


async def test_a_failure_that_passes_is_tried_again_with_pauses_until_it_is_given_up(
    harbour: Harbour, working: Working
) -> None:
    await harbour.add_user("ann")
    async with working(LORRY_TRAINING_ATTEMPTS="3", LORRY_REGISTRY_URL="http://127.0.0.1:9"):
        job = await harbour.submit("ann", steps=2)
        failed = await harbour.until(job.id)
    assert failed.state is State.FAILED
    assert failed.attempts == 3
    assert failed.error is not None
    assert failed.error["code"] == "registry-unavailable"
    kinds = await harbour.kinds(job.id)
    assert kinds.count("will be tried again") == 2
    assert kinds.count("stage finished train") == 1, "what was done is not done again"


async def test_priorities_and_a_tenants_quota_decide_whose_turn_it_is(harbour: Harbour, working: Working) -> None:
    for user in ("ann", "bob", "cid"):
        await harbour.add_user(user)
    await harbour.add_user("dora", tenant="other")
    await harbour.quotas.put("other", Quota(max_running=0))
    held = await harbour.submit("dora", tenant="other", priority=100)
    late = await harbour.submit("ann", steps=2, priority=-5)
    first = await harbour.submit("bob", steps=2, priority=5)
    middle = await harbour.submit("cid", steps=2)
    async with working(LORRY_TRAINING_PREPARE_SLOTS="1"):
        for job in (late, first, middle):
            await harbour.until(job.id)
        assert (await harbour.jobs.get(held.id)).state is State.QUEUED
        await harbour.quotas.put("other", Quota())
        await harbour.until(held.id)
    started = {job.id: (await harbour.jobs.get(job.id)).started_at for job in (late, first, middle)}
    assert sorted(started, key=lambda job_id: str(started[job_id])) == [first.id, middle.id, late.id]


async def test_two_workers_share_the_queue_and_no_job_is_done_twice(harbour: Harbour, working: Working) -> None:
    """DBOS is one per process: the second worker is another process."""
    users = [f"user-{number}" for number in range(6)]
    for user in users:
        await harbour.add_user(user)
    patience = {"LORRY_TRAINING_LEASE_SECONDS": "60"}
    harbour.start("two", **patience)
    try:
        async with working("one", **patience) as worker:
            await harbour.until_true(lambda: works(worker), what="one worker")
            await harbour.until_true(lambda: _says_that_it_works(harbour, "two"), what="the other")
            jobs = [await harbour.submit(user, steps=2) for user in users]
            for job in jobs:
                await harbour.until(job.id)
            taken = [each for job in jobs for each in await harbour.jobs.events(job.id) if each.kind == "taken"]
            for job in jobs:
                assert (await harbour.kinds(job.id)).count("stage began train") == 1
        assert {each.detail["worker_id"] for each in taken} == {"one", "two"}
    finally:
        harbour.close()


async def test_a_worker_shows_life_while_its_queue_is_prepared(
    harbour: Harbour, working: Working, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may take longer than a lease, after which another could take the worker's id."""
    prepared = _launch_slowly(monkeypatch)
    async with working("one"):
        try:
            await harbour.until_true(lambda: _alive(harbour, 1), what="a worker")
            await _until_heard_twice(harbour, "one")
        finally:
            prepared.set()


async def test_a_database_that_is_away_while_a_workers_queue_is_prepared_makes_no_mistake_of_it(
    harbour: Harbour, working: Working, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    prepared, broken = _launch_slowly(monkeypatch), FAILURES.labels("training worker", "broken")
    before = broken._value.get()
    await harbour.add_user("ann")
    job = await harbour.submit("ann")
    async with working("one", LORRY_TRAINING_LEASE_SECONDS="4") as worker:
        try:
            await harbour.until_true(lambda: _alive(harbour, 1), what="a worker")
            async with harbour.database.transaction() as session:
                await session.execute(text("lock table training_worker in share mode"))
                await until(lambda: "letting go of all jobs" in caplog.text)
            await _until_heard_twice(harbour, "one")
        finally:
            prepared.set()
        await harbour.until_event(job.id, "taken")
        await until(lambda: not worker._lost)
    assert broken._value.get() == before


async def test_a_second_worker_of_a_living_ones_id_is_refused(harbour: Harbour, working: Working) -> None:
    async with working("one") as worker:
        await harbour.until_true(lambda: works(worker), what="a worker")
        second = harbour.start("one", LORRY_TRAINING_LEASE_SECONDS="20")
        await harbour.until_true(lambda: _ended(second), what="the second worker's end")
        del harbour.processes["one"]
        assert second.returncode == 1
        assert "another id" in harbour.log("one")


async def test_a_tenants_rules_have_users_trained_and_not_again_without_something_new(
    harbour: Harbour, working: Working
) -> None:
    await harbour.add_user("ann")
    await harbour.rules.put("default", Rules(enabled=True, min_words=10, priority=3))
    async with working(LORRY_TRAINING_UPKEEP_SECONDS="600") as worker:
        await harbour.until_true(lambda: _any_job(harbour), what="a job that nobody submitted")
        (job,) = await harbour.jobs.list(tenant="default")
        assert (job.trigger, job.priority, job.user_id) == (Trigger.VOLUME, 3, "ann")
        assert (await harbour.until(job.id)).state in {State.SUCCEEDED, State.REJECTED}
        await worker._upkeep.pull_triggers()
        assert len(await harbour.jobs.list(tenant="default")) == 1, "there is nothing new"
        await harbour.add_user("bob")
        await worker._upkeep.pull_triggers()
        theirs = next(each for each in await harbour.jobs.list(tenant="default") if each.user_id == "bob")
        await harbour.jobs.cancel(theirs.id)
        await harbour.until(theirs.id)
        await worker._upkeep.pull_triggers()
    assert len(await harbour.jobs.list(tenant="default")) == 2, "what was canceled today is left alone"


async def test_a_campaign_trains_everybody_for_another_base_and_each_flips_by_their_own_gate(
    harbour: Harbour, working: Working, base_directory: Path, tmp_path: Path
) -> None:
    for user in ("ann", "bob"):
        await harbour.add_user(user)
    campaigns = Campaigns(harbour.database)
    other = await asyncio.to_thread(make_tiny_base, tmp_path / "other", tokenizer_of=base_directory, seed=9)
    async with working():
        before = {}
        for user in ("ann", "bob"):
            first = await harbour.until((await harbour.submit(user, steps=2, settings=_LETS_PASS)).id)
            assert first.state is State.SUCCEEDED, first.outcome
            before[user] = first.outcome
        begun = [
            await campaigns.begin(
                "default", base=str(other), known={"other"}, per_hour=100_000, users=[user], settings=settings
            )
            for user, settings in (
                ("ann", {**SETTINGS, "steps": 2, **_LETS_PASS}),
                ("bob", {**SETTINGS, "steps": 2, **_LETS_PASS, "gate.min_gain_nats": 100.0}),
            )
        ]

        async def done() -> bool:
            return all([(await campaigns.get(each.id)).state == "done" for each in begun])

        await harbour.until_true(done, what="the campaigns' end")
        assert [((await campaigns.get(each.id)).users, (await campaigns.get(each.id)).done) for each in begun] == [
            (1, 1),
            (1, 1),
        ]
    async with RegistryClient(url=harbour.registry_url, token=TOKEN) as registry:
        for campaign, state in zip(begun, (State.SUCCEEDED, State.REJECTED), strict=True):
            (job,) = await harbour.jobs.list(campaign_id=campaign.id)
            assert (job.state, job.outcome is not None) == (state, True)
            manifest = (await registry.get_version((job.outcome or {})["version_id"])).manifest
            assert manifest.base.id == "other"
            live = await registry.get_alias(Owner(tenant="default", user=job.user_id), "profile", "live")
            earlier = before[job.user_id] or {}
            assert live == (manifest.version_id if state is State.SUCCEEDED else earlier["version_id"])


async def _nothing_of(harbour: Harbour, job_id: str) -> bool:
    return harbour.leftovers(job_id) == []


async def _alive(harbour: Harbour, count: int) -> bool:
    return sum(each["state"] == "alive" for each in await harbour.fleet.workers()) >= count


async def _says_that_it_works(harbour: Harbour, worker_id: str) -> bool:
    return f"training worker {worker_id} works" in harbour.log(worker_id)


def _launch_slowly(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Have a worker's queue be prepared only when the event is set."""
    prepared = asyncio.Event()
    launch = DurableQueue.launch

    async def launch_slowly(self: DurableQueue, desk: Any) -> None:
        await prepared.wait()
        await launch(self, desk)

    monkeypatch.setattr(DurableQueue, "launch", launch_slowly)
    return prepared


async def _until_heard_twice(harbour: Harbour, worker_id: str) -> None:
    for _ in range(2):
        before = await _heard_of(harbour, worker_id)
        await harbour.until_true(lambda told=before: _heard_since(harbour, worker_id, told), what="a sign of life")


async def _heard_of(harbour: Harbour, worker_id: str) -> str:
    return next(str(each["heard_at"]) for each in await harbour.fleet.workers() if each["worker_id"] == worker_id)


async def _heard_since(harbour: Harbour, worker_id: str, moment: str) -> bool:
    return await _heard_of(harbour, worker_id) != moment


async def _ended(process: Forked) -> bool:
    return process.poll() is not None


async def _any_job(harbour: Harbour) -> bool:
    return bool(await harbour.jobs.list(tenant="default"))
