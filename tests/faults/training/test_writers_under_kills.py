"""Question writers that are paid: a worker that is killed pays for nothing twice, and failures of the service pass."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.claude_server import ClaudeServer, Failure, Outcome
from tests.support.claude_writing import CLAUDE, serving_claude
from tests.support.openai_writing import asking_openai
from tests.support.steering import rows
from tests.support.training_jobs import Harbour
from tests.support.writers import conversations
from training.jobs.job import Job
from training.jobs.record.repository import RecordRepository
from training.jobs.states import Stage, State

pytestmark = pytest.mark.faults
ENDED_WELL = {State.SUCCEEDED, State.REJECTED}


@pytest.fixture
async def claude(harbour: Harbour) -> AsyncIterator[ClaudeServer]:
    """The service that writes questions; workers are told where it is."""
    async with serving_claude(
        harbour,
        ClaudeServer(),
        LORRY_WRITER_POLL_SECONDS="0.2",
        LORRY_WRITER_LONGEST_PAUSE_SECONDS="0.2",
        LORRY_WRITER_TIMEOUT_SECONDS="10",
    ) as server:
        await harbour.add_user("ann", transcripts=conversations())
        yield server


async def test_a_worker_killed_while_it_waits_for_a_batch_pays_for_no_answer_twice(
    harbour: Harbour, claude: ClaudeServer
) -> None:
    claude.looks = 1_000_000
    job = await harbour.submit("ann", settings=CLAUDE)
    for kill in range(3):
        harbour.start("one")

        async def looked(seen: int = claude.calls["retrieve"]) -> bool:
            # At the second one the first has been kept: who dies before any step three times in a row is given up.
            return bool(claude.batches) and claude.calls["retrieve"] > seen + 1

        await harbour.until_true(looked, what=f"two looks at the batch, {kill}")
        harbour.kill("one")
    assert claude.created == 1
    for batch in claude.batches.values():
        claude.end(batch)
    harbour.start("one")
    ended = await harbour.until(job.id)
    assert ended.state in ENDED_WELL, ended.error
    assert claude.created == 1
    assert set(claude.paid.values()) == {1}
    assert claude.deleted == ["msgbatch_001"]
    spent = [each for each in await harbour.costs.sums(job_id=job.id, by="kind") if not each["is_estimate"]]
    assert {each["of"] for each in spent} == {"write", "train", "evaluate"}
    assert next(each["dollars"] for each in spent if each["of"] == "write") > 0


async def test_a_sample_that_was_paid_for_is_there_for_whoever_adopts_the_work(
    harbour: Harbour, claude: ClaudeServer
) -> None:
    claude.looks = 1_000_000
    job = await harbour.submit("ann", settings=CLAUDE)
    harbour.start("one")

    async def looked() -> bool:  # at a batch that is known, so after the sample was
        return claude.calls["retrieve"] > 0

    await harbour.until_true(looked, what="a look at the batch")
    harbour.kill("one")
    for batch in claude.batches.values():
        claude.end(batch)
    written = await adopted(harbour, job)
    assert claude.created == 1
    assert set(claude.paid.values()) == {1}
    assert len(claude.paid) == written["cost"]["usage"]["requests"]


async def test_answers_of_an_endpoint_that_keeps_none_are_there_for_whoever_adopts_the_work(harbour: Harbour) -> None:
    """The worker is killed while it waits for two of four requests that it made at once."""
    async with asking_openai(harbour, answered=3, LORRY_WRITER_CONCURRENCY="4") as server:
        job = await harbour.submit("ann", settings={"dataset.writer": "openai"})
        harbour.start("one")

        async def kept() -> bool:
            return len(await rows(harbour.database, "select request from training_answer")) == 3

        await harbour.until_true(kept, what="three answers kept")
        harbour.kill("one")
        assert len(server.paid) == 3
        server.fails = lambda body: None
        written = await adopted(harbour, job)
    assert set(server.paid.values()) == {1}
    assert len(server.paid) == written["cost"]["usage"]["requests"] > 4
    assert await rows(harbour.database, "select request from training_answer") == []


async def adopted(harbour: Harbour, job: Job) -> dict[str, Any]:
    """Have a worker without the dead one's disk go on with the job; return what was written, with no answer lost."""
    harbour.start("two", LORRY_TRAINING_DIRECTORY=str(harbour.directory / "elsewhere"))
    ended = await harbour.until(job.id)
    assert ended.state in ENDED_WELL, ended.error
    taken = [each.detail["worker_id"] for each in await harbour.jobs.events(job.id) if each.kind == "taken"]
    assert (taken[0], taken[-1]) == ("one", "two")
    async with harbour.database.reading() as session:
        written = (await RecordRepository(session).stages(job.id))[Stage.WRITE]
    assert [reason for reason in written["dropped"] if reason.startswith("request_")] == []
    return written


async def test_a_batch_whose_submission_a_kill_cut_is_found_again(harbour: Harbour, claude: ClaudeServer) -> None:
    """The service has taken the batch, and nobody has heard its answer."""
    claude.looks = 3
    claude.fail("create", Failure(after=True, cut=True))
    job = await harbour.submit("ann", settings=CLAUDE)
    harbour.start("one")

    async def created() -> bool:
        return claude.created >= 1

    await harbour.until_true(created, what="a batch", every=0.005)
    harbour.kill("one")
    harbour.start("one")
    ended = await harbour.until(job.id)
    assert ended.state in ENDED_WELL, ended.error
    assert claude.created == 1
    assert set(claude.paid.values()) == {1}


async def test_half_the_items_errored_and_a_service_that_is_overloaded_cost_attempts_but_not_the_job(
    harbour: Harbour, claude: ClaudeServer
) -> None:
    claude.outcome = lambda custom_id, asked: "errored" if asked == 0 and int(custom_id[-1], 36) % 2 else "succeeded"
    claude.fail("create", Failure(status=529, kind="overloaded_error"), Failure(status=500))
    claude.fail("results", Failure(status=429, kind="rate_limit_error", headers={"retry-after": "0"}))
    job = await harbour.submit("ann", settings=CLAUDE)
    harbour.start("one")
    ended = await harbour.until(job.id)
    assert ended.state in ENDED_WELL, ended.error
    assert set(claude.paid.values()) == {1}


async def test_a_batch_that_expired_and_answers_that_cannot_be_read_are_asked_for_again_and_nothing_twice(
    harbour: Harbour, claude: ClaudeServer
) -> None:
    def outcome(custom_id: str, asked: int) -> Outcome:
        if asked == 0:
            return "expired"
        return "malformed" if asked == 1 and int(custom_id[-1], 36) % 3 == 0 else "succeeded"

    claude.outcome = outcome
    job = await harbour.submit("ann", settings=CLAUDE)
    harbour.start("one")
    ended = await harbour.until(job.id)
    assert ended.state in ENDED_WELL, ended.error
    assert ended.attempts == 0
    assert claude.created >= 2, "what expired is asked for in another batch"
    assert not claude.batches
    assert len(claude.deleted) == len(set(claude.deleted)) == claude.created


async def test_a_canceled_job_cancels_its_batch_and_deletes_it(harbour: Harbour, claude: ClaudeServer) -> None:
    claude.looks = 1_000_000
    job = await harbour.submit("ann", settings=CLAUDE)
    harbour.start("one")

    async def submitted() -> bool:
        return bool(claude.batches)

    await harbour.until_true(submitted, what="a batch")
    await harbour.jobs.cancel(job.id)
    assert (await harbour.until(job.id)).state is State.CANCELED

    async def tidied() -> bool:
        for batch in claude.batches.values():
            if batch.status == "canceling":
                claude.end(batch)
        return bool(claude.canceled) and set(claude.deleted) == set(claude.canceled)

    await harbour.until_true(tidied, what="the batch deleted")

    async def nothing_left() -> bool:
        return harbour.leftovers(job.id) == []

    await harbour.until_true(nothing_left, what="an empty folder")
