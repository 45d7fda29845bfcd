"""The stage `publish` of a worker that is cut off between the registry's answer and the stage's end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest
from sqlalchemy import text

from kit.errors import DatabaseUnavailable
from registry.client import RegistryClient
from registry.manifest import LIVE, Owner
from tests.support.registry_server import TOKEN
from tests.support.training_jobs import Harbour, talks
from training.jobs.assignment import Assignment
from training.jobs.job import Job
from training.jobs.repository import JobRepository
from training.jobs.states import State
from training.jobs.triggers.repository import TrainedRepository
from training.jobs.worker import Worker
from training.jobs.workshop.publication import Publication
from transcripts.store import TranscriptStore

Working = Callable[..., AbstractAsyncContextManager[Worker]]
OWNER = Owner.named(tenant="default", user="ann")


async def live(harbour: Harbour) -> str | None:
    async with RegistryClient(url=harbour.registry_url, token=TOKEN, actor="test") as registry:
        return await registry.get_alias(OWNER, "profile", LIVE)


async def versions(harbour: Harbour) -> list[str]:
    """Return ann's versions that are not erased."""
    async with RegistryClient(url=harbour.registry_url, token=TOKEN, actor="test") as registry:
        return [each.version_id for each in await registry.list_versions(OWNER, "profile") if each.erased_at is None]


async def published_and_cut_off(harbour: Harbour, working: Working, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Job]:
    """Have a version of ann's, and a job whose worker published another, made it live, and could not say so."""
    await harbour.add_user("ann")
    async with working():
        first = await harbour.until((await harbour.submit("ann")).id)
    assert first.state is State.SUCCEEDED, first.error
    assert first.outcome is not None
    before = first.outcome["version_id"]

    async def cut_off(*_: object) -> None:
        raise DatabaseUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(TrainedRepository, "keep", cut_off)
        async with working():
            job = await harbour.submit("ann", steps=6)

            async def moved() -> bool:
                return await live(harbour) != before

            await harbour.until_true(moved, what="the second version live")
    assert len(await versions(harbour)) == 2
    return before, job


@pytest.mark.parametrize("ends", ["canceled", "erased"])
async def test_what_a_canceled_job_has_published_is_taken_back_and_live_is_what_it_was(
    harbour: Harbour, working: Working, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    before, job = await published_and_cut_off(harbour, working, monkeypatch)
    if ends == "canceled":
        await harbour.jobs.cancel(job.id)
    else:
        async with harbour.database.transaction() as session:
            await TranscriptStore(session).delete("default", "ann", talks("ann")[0].id)
    async with working():
        assert (await harbour.until(job.id)).state is State.CANCELED
        await harbour.until_true(lambda: _is_settled(harbour, job.id), what="nothing of it in the registry", seconds=60)
    assert await live(harbour) == before
    assert await versions(harbour) == [before]


async def test_a_job_that_goes_on_after_it_has_published_ends_with_that_version(
    harbour: Harbour, working: Working, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, job = await published_and_cut_off(harbour, working, monkeypatch)
    async with working():
        ended = await harbour.until(job.id)
    assert ended.state is State.SUCCEEDED, ended.error
    assert ended.outcome is not None
    assert await live(harbour) == ended.outcome["version_id"] != before
    assert len(await versions(harbour)) == 2


async def test_a_version_that_somebody_else_had_published_outlives_a_canceled_job_of_the_same_content(
    harbour: Harbour, working: Working, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, job = await published_and_cut_off(harbour, working, monkeypatch)
    async with harbour.database.transaction() as session:  # as if it had been there before this job came to it
        await JobRepository(session).update(job.id, {"publishing": None})
    await harbour.jobs.cancel(job.id)
    async with working():
        assert (await harbour.until(job.id)).state is State.CANCELED
    assert len(await versions(harbour)) == 2
    assert await live(harbour) != before


async def _is_settled(harbour: Harbour, job_id: str) -> bool:
    async with harbour.database.reading() as session:
        row = await JobRepository(session).get(job_id)
    return row is not None and row.publishing is None


async def test_words_that_are_counted_again_while_a_job_publishes_are_remembered_so(
    harbour: Harbour, working: Working, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_going_on = Publication._require_going_on

    async def recount(self: Publication, job: Assignment) -> None:
        async with harbour.database.transaction() as session:
            await session.execute(text("update training_stage set result = result || '{\"words\": 7}'"))
        await require_going_on(self, job)

    monkeypatch.setattr(Publication, "_require_going_on", recount)
    await harbour.add_user("ann")
    async with working():
        ended = await harbour.until((await harbour.submit("ann")).id)
    assert ended.state is State.SUCCEEDED, ended.error
    async with harbour.database.reading() as session:
        trained = await TrainedRepository(session).all(tenant="default", adapter="profile")
    assert trained["ann"].words == 7
