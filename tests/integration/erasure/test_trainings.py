"""Erasing a user whose training runs, or whose batch lies at a question writer's service."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest
from pydantic import SecretStr

from kit.errors import BeingErased
from registry.client import RegistryClient
from registry.manifest import Owner
from serving.erasure.repository import Task
from tests.support.claude_server import KEY, ClaudeServer
from tests.support.claude_writing import CLAUDE, serving_claude
from tests.support.erasing import Erasing, in_database, in_files, store
from tests.support.training_jobs import Harbour
from tests.support.writers import conversations
from training.erasure.remote import RemoteWritings
from training.jobs.costs.bill import Bill
from training.jobs.costs.repository import CostRepository, cost_row
from training.jobs.finished.repository import FinishedRepository
from training.jobs.states import State
from training.jobs.worker import Worker
from training.writers.settings import WriterSettings

Working = Callable[..., AbstractAsyncContextManager[Worker]]


async def test_a_training_that_runs_is_stopped_and_leaves_nothing_on_its_workers_disk(
    harbour: Harbour, working: Working, erasing: Erasing, client: RegistryClient
) -> None:
    await harbour.add_user("ann-the-gone")
    async with working():
        job = await harbour.submit("ann-the-gone", steps=100_000)
        await harbour.until_event(job.id, "stage began", stage="train")
        assert harbour.leftovers(job.id)
        task = await erasing.ask("ann-the-gone")
        with pytest.raises(BeingErased):
            await harbour.submit("ann-the-gone")
        report = await erasing.until_done(task)
        assert harbour.leftovers(job.id) == []
    assert (await client.lifecycle.remains(Owner(tenant="default", user="ann-the-gone"))).versions == 0
    assert store(report, "trainings").found["jobs"] == 1
    assert await in_database(harbour.database, ["ann-the-gone"]) == {}
    assert in_files(harbour.directory / "training", ["ann-the-gone", job.id]) == {}


async def test_a_job_whose_worker_died_is_ended_and_a_worker_that_comes_back_clears_its_disk(
    harbour: Harbour, working: Working, erasing: Erasing
) -> None:
    await harbour.add_user("ann")
    harbour.start("two")
    job = await harbour.submit("ann", steps=100_000)
    await harbour.until_event(job.id, "stage began", stage="train")
    harbour.kill("two")
    task = await erasing.ask("ann")

    async def ended() -> bool:
        report = await erasing.advance(task)
        return store(report, "trainings").state == "done"

    await harbour.until_true(ended, what="the trainings erased", seconds=60)
    report = await erasing.advance(task)
    assert [each.split(":")[0] for each in report.waits_for] == ["workers"]
    assert harbour.leftovers(job.id)
    async with working("two"):
        await erasing.until_done(task)
    assert harbour.leftovers(job.id) == []


async def test_what_a_job_has_trained_and_not_published_is_counted_and_removed(
    harbour: Harbour, erasing: Erasing
) -> None:
    await harbour.add_user("ann")
    job = await harbour.submit("ann")
    async with harbour.database.transaction() as session:
        finished = FinishedRepository(session)
        await finished.begin(job.id)
        await finished.add_part(job.id, "adapter/adapter_model.safetensors", 0, b"the weights of ann")
    assert "public.training_finished_part" in await in_database(harbour.database, ["the weights of ann"])
    report = await erasing.until_done(await erasing.ask("ann"))
    assert store(report, "trainings").found["finished trainings"] == 1
    assert await in_database(harbour.database, ["the weights of ann"]) == {}


async def test_what_a_command_still_spends_bears_no_name_and_what_it_promised_is_free(
    harbour: Harbour, erasing: Erasing
) -> None:
    bill = Bill(tenant="default", user="ann")
    await harbour.add_user("ann")

    async def keep(dollars: float, *, is_estimate: bool) -> None:
        async with harbour.database.transaction() as session:
            await CostRepository(session).keep(cost_row(bill, "write", is_estimate=is_estimate, dollars=dollars))

    await keep(9.0, is_estimate=True)
    await keep(1.0, is_estimate=False)
    task = await erasing.ask("ann")
    await harbour.until_true(lambda: _is_done(erasing, task, "trainings"), what="the trainings erased")
    await keep(2.0, is_estimate=False)
    await erasing.until_done(task)
    (spent,) = await harbour.costs.sums(by="user_id")
    assert (spent["of"] != "ann", spent["is_estimate"], spent["dollars"]) == (True, False, 2.0)
    async with harbour.database.reading() as session:
        assert await CostRepository(session).promised_dollars("default", except_job="") == 0.0


async def _is_done(erasing: Erasing, task: Task, name: str) -> bool:
    return bool(store(await erasing.advance(task), name).state == "done")


async def test_a_batch_that_runs_at_the_service_is_cancelled_and_deleted_there(
    harbour: Harbour, working: Working, erasing: Erasing
) -> None:
    await harbour.add_user("ann", transcripts=conversations())
    impatience = {"LORRY_WRITER_POLL_SECONDS": "0.1", "LORRY_WRITER_LONGEST_PAUSE_SECONDS": "0.2"}
    async with serving_claude(harbour, ClaudeServer(looks=1_000_000), **impatience) as claude:
        url = harbour.changes["LORRY_WRITER_URL"]
        erasing.writers = WriterSettings(
            writer_url=url, writer_api_key=SecretStr(KEY), writer_longest_pause_seconds=0.2, writer_poll_seconds=0.1
        )
        async with working():
            job = await harbour.submit("ann", settings=CLAUDE)

            async def known() -> bool:
                writings = RemoteWritings(erasing.database, erasing.writers)
                return await writings.count(tenant="default", user="ann") == 1

            await harbour.until_true(known, what="the batch known", seconds=120)
        assert (await harbour.jobs.get(job.id)).state is State.RUNNING
        assert "public.training_answer" in await in_database(harbour.database, ["quietly think of"]), (
            "the sample's answer"
        )
        task = await erasing.ask("ann")
        report = await erasing.advance(task)
        assert "cancelled and deleted when they end" in store(report, "batches").waits_for[0]
        assert store(report, "batches").found == {"batches": 1}
        assert claude.canceled
        for batch in claude.batches.values():
            claude.end(batch)
        async with working():
            report = await erasing.until_done(task)
        assert claude.batches == {}
        assert claude.deleted == claude.canceled
        assert store(report, "trainings").found["answers"] == 1
        assert await in_database(harbour.database, ["quietly think of"]) == {}
