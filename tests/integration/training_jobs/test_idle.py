"""A worker with nothing to do, jobs that lost their run, and workers that died long ago."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any
from unittest.mock import AsyncMock

import pytest
from dbos._dbos import _get_dbos_instance
from sqlalchemy import event, text

from tests.support.training_jobs import Harbour, works
from tests.support.waiting import until
from training.jobs.fleet.repository import WorkerRepository
from training.jobs.states import State
from training.jobs.worker import Worker

Working = Callable[..., AbstractAsyncContextManager[Worker]]
_BREAK = """
create function refuse_ends() returns trigger language plpgsql as
$$ begin
  if new.state in ('succeeded', 'rejected') then raise exception 'as the test wants it'; end if;
  return new;
end $$
"""
_TRIGGER = "create trigger refuse_ends before update on training_job for each row execute function refuse_ends()"


@contextmanager
def counted(engine: Any) -> Iterator[Counter[str]]:
    """Count what is asked through an SQLAlchemy engine, by statement."""
    asked: Counter[str] = Counter()

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        asked[statement] += 1

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield asked
    finally:
        event.remove(engine, "before_cursor_execute", note)


async def test_a_worker_with_nothing_to_do_asks_one_question_and_lets_dbos_sleep(
    harbour: Harbour, working: Working
) -> None:
    async with working(LORRY_TRAINING_LEASE_SECONDS="600", LORRY_TRAINING_UPKEEP_SECONDS="600") as worker:
        await harbour.until_true(lambda: works(worker), what="the worker's start")
        end = time.monotonic() + 120.0
        while True:  # until what is done at the start is done, and the pauses that DBOS had begun before are over
            with counted(worker._database.engine.sync_engine) as ours, counted(_dbos_engine()) as theirs:
                seconds = await until(lambda asked=ours: sum(asked.values()) >= 20, within_seconds=120)
            may_ask = max(2.0, seconds)
            if (len(ours) == 1 and sum(theirs.values()) <= may_ask) or time.monotonic() > end:
                break
    assert len(ours) == 1, ours
    assert sum(theirs.values()) <= may_ask, f"DBOS asks by itself twenty times a second; {theirs} in {seconds:.0f} s"


async def test_a_job_that_is_submitted_wakes_a_worker_that_sleeps(harbour: Harbour, working: Working) -> None:
    await harbour.add_user("ann")
    async with working(LORRY_TRAINING_LEASE_SECONDS="600") as worker:  # DBOS sleeps for half a minute by itself
        await harbour.until_true(lambda: works(worker), what="the worker's start")
        awake = worker._queue._pace._awake

        async def sleeps() -> bool:
            return not awake.is_set()

        async def wakes() -> bool:
            return awake.is_set()

        await harbour.until_true(sleeps, what="a worker that sleeps")
        job = await harbour.submit("ann")
        await harbour.until_true(wakes, what="the worker's waking")
        ended = await harbour.until(job.id)
        assert ended.state in {State.SUCCEEDED, State.REJECTED}, ended.error
        await harbour.until_true(sleeps, what="a worker that sleeps again")


async def test_a_job_whose_run_fails_without_an_outcome_is_not_left_behind(harbour: Harbour, working: Working) -> None:
    await harbour.add_user("ann")
    await _execute(harbour, _BREAK, _TRIGGER)
    async with working(LORRY_TRAINING_CRASHES="9"):
        job = await harbour.submit("ann")
        await harbour.until_event(job.id, "run lost")
        await _execute(harbour, "drop trigger refuse_ends on training_job")
        ended = await harbour.until(job.id)
    assert ended.state in {State.SUCCEEDED, State.REJECTED}, ended.error
    kinds = await harbour.kinds(job.id)
    assert kinds.count("stage finished train") == 1, "what was done is not done again"


async def test_a_job_that_goes_on_losing_its_runs_is_given_up(harbour: Harbour, working: Working) -> None:
    await harbour.add_user("ann")
    await _execute(harbour, _BREAK, _TRIGGER)
    async with working(LORRY_TRAINING_CRASHES="2"):
        job = await harbour.submit("ann")
        ended = await harbour.until(job.id)
    assert ended.state is State.FAILED
    assert ended.error is not None
    assert ended.error["code"] == "workers-died"


async def test_workers_that_died_long_ago_and_hold_nothing_are_not_buried_again_and_again(
    harbour: Harbour, working: Working, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"boot": "1:1.0", "host": "away", "prepare_slots": 1, "train_slots": 1, "lease_seconds": 1.0}
    async with harbour.database.transaction() as session:
        for number in range(50):
            await WorkerRepository(session).register({"id": f"pod-{number}", **row})
            await WorkerRepository(session).leave(f"pod-{number}", boot="1:1.0")
    async with working(LORRY_TRAINING_UPKEEP_SECONDS="600") as worker:
        await harbour.until_true(lambda: works(worker), what="the worker's start")
        buried, recovered = AsyncMock(), AsyncMock()
        monkeypatch.setattr(worker._upkeep, "bury", buried)
        monkeypatch.setattr(worker._queue, "recover", recovered)
        await worker._adopt()
    assert (buried.await_count, recovered.await_count) == (0, 0)


def _dbos_engine() -> Any:
    return _get_dbos_instance()._sys_db.engine


async def _execute(harbour: Harbour, *statements: str) -> None:
    async with harbour.database.transaction() as session:
        for statement in statements:
            await session.execute(text(statement))
