"""The stage `write` of a worker: what a question writer is shown, whom it waits for, and what is left of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import pytest
from sqlalchemy import text

from tests.support.claude_server import KEY, ClaudeServer, Failure
from tests.support.claude_writing import CLAUDE, serving_claude
from tests.support.openai_server import OpenAIServer
from tests.support.openai_writing import asking_openai
from tests.support.steering import rows
from tests.support.training_jobs import Harbour
from tests.support.writers import conversations
from training.jobs.assignment import Assignment, StopReason
from training.jobs.costs.repository import CostRepository
from training.jobs.dispatch import Quota
from training.jobs.errors import JobStopped
from training.jobs.job import Job
from training.jobs.repository import JobRepository
from training.jobs.states import State
from training.jobs.worker import Worker
from training.jobs.writings.repository import WritingRepository
from training.jobs.writings.spool import WritingSpool
from training.writers.state import WriterState
from transcripts.store import TranscriptStore

Working = Callable[..., AbstractAsyncContextManager[Worker]]


@pytest.fixture
async def claude(harbour: Harbour) -> AsyncIterator[ClaudeServer]:
    """The service; its batches do not end by themselves."""
    never_done = ClaudeServer(looks=1_000_000)
    impatience = {"LORRY_WRITER_POLL_SECONDS": "0.1", "LORRY_WRITER_LONGEST_PAUSE_SECONDS": "0.2"}
    async with serving_claude(harbour, never_done, **impatience) as server:
        yield server


async def batches(harbour: Harbour, claude: ClaudeServer, count: int) -> None:
    """Wait until so many batches were submitted."""

    async def submitted() -> bool:
        return claude.created >= count

    await harbour.until_true(submitted, what=f"{count} batches", seconds=120)


async def begun(harbour: Harbour, claude: ClaudeServer) -> Job:
    """Have a job of ann's that waits for its batch, and knows it."""
    job = await harbour.submit("ann", settings=CLAUDE)
    await batches(harbour, claude, 1)
    await harbour.until_true(lambda: _knows_batch(harbour, job.id), what="the batch known")
    return job


async def paused(harbour: Harbour, working: Working, claude: ClaudeServer) -> Job:
    """Have a job of ann's that is paused while it waits for its batch; no worker is left."""
    await harbour.add_user("ann", transcripts=conversations())
    async with working():
        job = await begun(harbour, claude)
        await harbour.jobs.pause(job.id)
        return await harbour.until(job.id, State.PAUSED)


async def given_up(harbour: Harbour, working: Working, claude: ClaudeServer) -> Job:
    """Have a paused job of ann's whose every question was asked, and none answered usefully."""
    job = await paused(harbour, working, claude)
    async with harbour.database.transaction() as session:
        writings = WritingRepository(session)
        state = await writings.state(job.id)
        assert state is not None
        gone = {name: replace(item, outcome="given_up") for name, item in state.items.items()}
        await writings.keep(job.id, state=replace(state, phase="written", items=gone).to_json())
    return job


async def waiting_for_an_answer(harbour: Harbour, server: OpenAIServer) -> Job:
    """Have a job of ann's whose writer asks again and again for what the server has no answer to."""
    job = await harbour.submit("ann", settings={"dataset.writer": "openai"})

    async def asked() -> bool:
        return server.calls > len(server.paid) + 4  # more than are ever on their way at once

    await harbour.until_true(asked, what="requests refused")
    return job


async def test_a_worker_replaces_what_the_redaction_file_names_before_anything_leaves_it(
    harbour: Harbour, working: Working, claude: ClaudeServer
) -> None:
    rules = harbour.directory / "redaction.yaml"
    rules.write_text('names: ["Zebulon"]\npatterns: {badge: "B-[0-9]{4}"}\n')
    harbour.changes["LORRY_REDACTION_FILE"] = str(rules)
    await harbour.add_user("ann", transcripts=conversations(secret=" with Zebulon, badge B-1234"))
    async with working():
        job = await harbour.submit("ann", settings=CLAUDE)
        await batches(harbour, claude, 1)
        await harbour.jobs.cancel(job.id)
        await harbour.until(job.id)
    sent = json.dumps(claude.sent)
    assert "[redacted name]" in sent
    assert "[redacted badge]" in sent
    assert "Zebulon" not in sent
    assert "B-1234" not in sent


async def test_users_whose_batches_are_of_one_size_do_not_wait_for_one_anothers_to_end(
    harbour: Harbour, working: Working, claude: ClaudeServer
) -> None:
    users = ("ann", "bob", "cid", "dan")
    for user in users:
        await harbour.add_user(user, transcripts=conversations())
    async with working():
        jobs = [await harbour.submit(user, settings=CLAUDE) for user in users]
        await batches(harbour, claude, len(users))
        assert {len(batch.requests) for batch in claude.batches.values()} == {
            len(claude.batches["msgbatch_001"].requests)
        }
        for job in jobs:
            await harbour.jobs.cancel(job.id)
        for job in jobs:
            await harbour.until(job.id)


async def test_a_canceled_job_that_is_retried_before_its_batch_has_ended_gets_one_of_its_own(
    harbour: Harbour, working: Working, claude: ClaudeServer
) -> None:
    await harbour.add_user("ann", transcripts=conversations())
    async with working():
        job = await begun(harbour, claude)
        await harbour.jobs.cancel(job.id)
        assert (await harbour.until(job.id)).state is State.CANCELED
        (first,) = claude.batches.values()
        await harbour.jobs.retry(job.id)
        await harbour.until_event(job.id, "retried")

        async def canceling() -> bool:
            return first.status == "canceling"

        await harbour.until_true(canceling, what="the first batch canceled")
        claude.end(first)
        await batches(harbour, claude, 2)
        assert claude.deleted == [first.id]
        await harbour.jobs.cancel(job.id)
        await harbour.until(job.id)


async def test_nothing_anybody_said_stays_where_the_service_cannot_be_asked_to_delete(
    harbour: Harbour, working: Working, claude: ClaudeServer
) -> None:
    job = await paused(harbour, working, claude)
    async with harbour.database.transaction() as session:
        await WritingRepository(session).keep(job.id, written={"examples": ["what ann has said"]})
    assert await _answers(harbour, job.id) == 1, "the sample"
    del harbour.changes["LORRY_WRITER_API_KEY"]
    async with working():
        async with harbour.database.transaction() as session:
            await TranscriptStore(session).delete("default", "ann")
        assert (await harbour.until(job.id)).state is State.CANCELED
        await harbour.until_true(lambda: _no_content(harbour, job.id), what="no content", seconds=60)
        assert await _knows_batch(harbour, job.id), "the batch is yet to be deleted"
    harbour.changes["LORRY_WRITER_API_KEY"] = KEY
    async with working():

        async def deleted() -> bool:
            for batch in claude.batches.values():
                if batch.status == "canceling":
                    claude.end(batch)
            return not claude.batches and not await _knows_batch(harbour, job.id)

        await harbour.until_true(deleted, what="the batch deleted", seconds=60)


async def test_an_answer_that_the_database_could_not_take_is_kept_when_it_can_and_not_bought_again(
    harbour: Harbour, working: Working
) -> None:
    async with asking_openai(harbour, answered=0) as server, working(LORRY_DATABASE_LOCK_TIMEOUT_SECONDS="0.3"):
        job = await waiting_for_an_answer(harbour, server)
        async with harbour.database.transaction() as session:
            await JobRepository(session).get(job.id, lock=True)
            server.fails = lambda body: None
            seen: set[object] = set()

            async def refused() -> bool:
                seen.update(row[0] for row in await rows(harbour.database, _WAITING))
                return len(seen) > 1

            await harbour.until_true(refused, what="an answer refused, and tried again")
            assert await _answers(harbour, job.id) == 0
        await harbour.until_event(job.id, "stage finished", stage="write")
        await harbour.jobs.cancel(job.id)
        await harbour.until(job.id)
    assert set(server.paid.values()) == {1}
    assert len(server.paid) > 1


async def test_a_worker_that_has_lost_its_job_does_not_say_how_far_it_is(harbour: Harbour, working: Working) -> None:
    async def state(job: Job) -> WriterState | None:
        async with harbour.database.reading() as session:
            return await WritingRepository(session).state(job.id)

    async with asking_openai(harbour, answered=1) as server, working():
        job = await waiting_for_an_answer(harbour, server)
        before = await state(job)
        async with harbour.database.transaction() as session:
            await JobRepository(session).update(job.id, {"worker_id": "two"})
        server.answer = lambda body: json.dumps({"pairs": []})
        server.fails = lambda body: None
    assert len(server.paid) > 1
    assert before is not None
    assert await state(job) == before


async def test_a_worker_that_has_lost_its_job_neither_keeps_nor_removes_an_answer(harbour: Harbour) -> None:
    await harbour.add_user("ann")
    job = await harbour.submit("ann")
    async with harbour.database.transaction() as session:
        await JobRepository(session).hand_over(job.id)
    ours = await _taken(harbour, job, by="one")
    await WritingSpool(harbour.database, ours).put("a", b"1")
    async with harbour.database.transaction() as session:
        await JobRepository(session).orphan("one")
    for held_by_another in (False, True):
        if held_by_another:
            theirs = WritingSpool(harbour.database, await _taken(harbour, job, by="two"))
        with pytest.raises(JobStopped, match="parked"):
            await WritingSpool(harbour.database, ours).put("b", b"2")
        with pytest.raises(JobStopped, match="parked"):
            await WritingSpool(harbour.database, ours).clear()
        assert ours.stopped is StopReason.PARKED
    assert (await theirs.get("a"), await theirs.get("b")) == (b"1", None)
    await theirs.put("b", b"3")
    assert await _answers(harbour, job.id) == 2
    await theirs.clear()
    assert await _answers(harbour, job.id) == 0


async def test_what_useless_samples_cost_is_written_down_for_every_run(
    harbour: Harbour, working: Working, claude: ClaudeServer
) -> None:
    claude.answer = lambda params: json.dumps({"pairs": []})
    await harbour.add_user("ann", transcripts=conversations())
    spent = []
    async with working(LORRY_TRAINING_ATTEMPTS="1"):
        job = await harbour.submit("ann", settings=CLAUDE)
        for run in range(2):
            if run:
                await harbour.jobs.retry(job.id)
            failed = await harbour.until(job.id)
            assert failed.error is not None
            assert failed.error["code"] == "writer-failed"
            rows = await harbour.costs.sums(job_id=job.id, by="kind")
            spent += [row["dollars"] for row in rows if row["of"] == "write" and not row["is_estimate"]]
    assert claude.calls["ask"] == 6
    assert spent == [pytest.approx(spent[0]), pytest.approx(2 * spent[0])]
    assert spent[0] > 0


async def test_a_writing_that_gets_no_further_forgives_no_workers_death(
    harbour: Harbour, working: Working, claude: ClaudeServer
) -> None:
    job = await given_up(harbour, working, claude)
    async with harbour.database.transaction() as session:
        await JobRepository(session).update(job.id, {"crashes": 2})
    async with working(LORRY_TRAINING_ATTEMPTS="1"):
        await harbour.jobs.resume(job.id)
        failed = await harbour.until(job.id)
    assert (failed.state, failed.crashes) == (State.FAILED, 2), "deaths while answers are gathered count together"


async def test_a_writing_that_came_to_nothing_is_discarded_and_a_retry_has_another_one_begun(
    harbour: Harbour, working: Working, claude: ClaudeServer
) -> None:
    job = await given_up(harbour, working, claude)
    (first,) = claude.batches.values()
    claude.end(first)
    before = await _dollars(harbour, job.id)
    async with working(LORRY_TRAINING_ATTEMPTS="1"):
        await harbour.jobs.resume(job.id)
        failed = await harbour.until(job.id)
        assert failed.error is not None
        assert failed.error["code"] == "writer-failed"
        assert claude.deleted == [first.id]
        await harbour.jobs.retry(job.id)
        await batches(harbour, claude, 2)
        (second,) = claude.batches.values()
        claude.end(second)
        await harbour.until_event(job.id, "stage finished", stage="write")
        await harbour.jobs.cancel(job.id)
        await harbour.until(job.id)
    assert before > 0
    assert await _dollars(harbour, job.id) > 2 * before, "what the first writing cost counts beside the second"


async def test_what_a_retry_has_begun_anew_is_gone_on_with_also_where_only_an_answer_was_kept_before(
    harbour: Harbour, working: Working, claude: ClaudeServer
) -> None:
    await harbour.add_user("ann", transcripts=conversations())
    job = await harbour.submit("ann", settings=CLAUDE)
    await harbour.jobs.cancel(job.id)
    async with harbour.database.transaction() as session:
        await WritingRepository(session).keep_answer(job.id, "a", b"1")  # and its worker died before there was a state
    await harbour.jobs.retry(job.id)
    assert await _answers(harbour, job.id) == 0
    async with working():
        await batches(harbour, claude, 1)
        async with harbour.database.reading() as session:
            assert not await WritingRepository(session).is_given_up(job.id)
        await harbour.jobs.cancel(job.id)
        await harbour.until(job.id)


async def test_a_retry_of_a_failed_writing_is_refused_when_the_month_is_used_up_by_now(
    harbour: Harbour, working: Working, claude: ClaudeServer
) -> None:
    claude.fail("ask", *(Failure(400, "invalid_request_error") for _ in range(9)))
    await harbour.add_user("ann", transcripts=conversations())
    await harbour.quotas.put("default", Quota(max_monthly_dollars=100.0))
    async with working(LORRY_TRAINING_ATTEMPTS="1"):
        job = await harbour.submit("ann", settings=CLAUDE)
        failed = await harbour.until(job.id)
        assert (failed.error or {}).get("stage") == "write"
        async with harbour.database.transaction() as session:
            other = {"job_id": "j" + "0" * 32, "tenant": "default", "user_id": "bob", "kind": "write"}
            await CostRepository(session).keep({**other, "is_estimate": False, "dollars": 99.999})
        await harbour.jobs.retry(job.id)
        refused = await harbour.until(job.id)
    assert (refused.error or {}).get("code") == "quota-exhausted"


_WAITING = (
    "select query_start from pg_stat_activity"
    " where wait_event_type = 'Lock' and datname = current_database() and query ilike '%training_job%for update%'"
)


async def _taken(harbour: Harbour, job: Job, *, by: str) -> Assignment:
    """Have a worker hold a job that was handed over once."""
    async with harbour.database.transaction() as session:
        row = await JobRepository(session).take(job.id, run=1, worker_id=by)
        assert row is not None
        return Assignment.of(row)


async def _answers(harbour: Harbour, job_id: str) -> int:
    async with harbour.database.reading() as session:
        query = text("select count(*) from training_answer where job_id = :job")
        return int((await session.execute(query, {"job": job_id})).scalar_one())


async def _dollars(harbour: Harbour, job_id: str) -> float:
    rows = await harbour.costs.sums(job_id=job_id, by="kind")
    return sum(row["dollars"] for row in rows if row["of"] == "write" and not row["is_estimate"])


async def _knows_batch(harbour: Harbour, job_id: str) -> bool:
    async with harbour.database.reading() as session:
        state = await WritingRepository(session).state(job_id)
    return state is not None and bool(state.batches)


async def _no_content(harbour: Harbour, job_id: str) -> bool:
    async with harbour.database.reading() as session:
        written = await WritingRepository(session)._row(job_id)
    gone = (written is None or written.written is None) and await _answers(harbour, job_id) == 0
    return gone and harbour.leftovers(job_id) == []
