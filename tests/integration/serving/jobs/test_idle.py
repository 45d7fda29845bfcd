"""A worker with nothing to do: it asks one question at a time, and neither sleeps on nor dies unseen."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import event, text

from kit.background import FAILURES
from kit.errors import BackgroundEnded
from serving.jobs.operations import answering
from serving.jobs.worker import Worker
from tests.support.extraction_jobs import Engine, Mill


@contextmanager
def statements(worker: Worker) -> Iterator[Counter[str]]:
    """Count what a worker asks of PostgreSQL, by statement."""
    asked: Counter[str] = Counter()

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        asked[statement] += 1

    engine = worker._database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield asked
    finally:
        event.remove(engine, "before_cursor_execute", note)


async def test_an_idle_worker_asks_one_question_whenever_it_looks(mill: Mill) -> None:
    async with mill.working(extraction_upkeep_seconds=600.0, extraction_lease_seconds=3600.0) as worker:
        await mill.until(lambda: worker.port > 0, what="the worker's start")
        for _ in range(20):  # until what is done at the start is done
            with statements(worker) as asked:
                await mill.until(lambda seen=asked: sum(seen.values()) >= 20, what="twenty looks")
            ((_, count),) = asked.most_common(1)
            if sum(asked.values()) - count <= 2:
                break
    assert sum(asked.values()) - count <= 2, f"signs of life are given now and then; {asked}"


async def test_an_idle_worker_takes_what_is_submitted_paused_and_resumed(mill: Mill, stand_in: Engine) -> None:
    await mill.add_users("ann", "bob")
    async with mill.working(extraction_users_at_once=1, extraction_prefetch=0):
        await asyncio.sleep(0.3)
        stand_in.open.clear()
        batch = await mill.submit("ann", "bob")
        await mill.until(lambda: len(stand_in.asked) >= 1, what="a user in hand")
        await mill.batches.pause(batch.id, tenant="default")
        stand_in.open.set()

        async def rests() -> bool:
            return (await mill.get(batch.id)).progress.in_hand == 0

        await mill.until(rests, what="the pause")
        await asyncio.sleep(0.3)
        assert (await mill.get(batch.id)).progress.waiting == 1
        await mill.batches.resume(batch.id, tenant="default")
        assert (await mill.until_ended(batch.id)).progress.done == 2


async def test_an_engine_that_was_away_is_asked_for_even_when_nobody_waits_any_more(
    mill: Mill, stand_in: Engine
) -> None:
    await mill.add_users("ann")
    stand_in.is_down = True
    async with mill.working() as worker:
        await mill.until(lambda: worker.port > 0, what="the worker's start")
        batch = await mill.submit("ann")
        async with httpx.AsyncClient(timeout=60) as http:

            async def engine_is(up: int) -> bool:
                found = await http.get(f"http://127.0.0.1:{worker.port}/metrics")
                return f'lorry_extraction_engine_up{{engine="default"}} {up}.0' in found.text

            await mill.until(lambda: engine_is(0), what="the engine's absence")
            await mill.batches.cancel(batch.id, tenant="default")
            stand_in.is_down = False
            await mill.until(lambda: engine_is(1), what="the engine's return")


async def test_a_worker_whose_door_is_broken_ends_and_says_so(mill: Mill) -> None:
    worker = Worker(mill.worker_settings(), bank=mill.bank)
    working = asyncio.create_task(worker.run())
    await mill.until(lambda: worker.port > 0, what="the worker's start")
    next(task for task in asyncio.all_tasks() if task.get_name() == "door").cancel()
    with pytest.raises(BackgroundEnded, match="extraction worker"):
        await asyncio.wait_for(working, 30)
    assert await mill.workers() == {"one": "left"}, "its users are free for others"


async def test_a_door_that_broke_leaves_no_number_of_a_file_that_the_loop_does_not_hear() -> None:
    async with answering(FastAPI(), host="127.0.0.1", port=0) as door:
        await asyncio.sleep(0.05)
        door.answers.cancel()
    for ours, theirs in [socket.socketpair() for _ in range(8)]:  # which get the numbers that are free
        reader, writer = await asyncio.open_connection(sock=ours)
        theirs.send(b"x")
        assert await asyncio.wait_for(reader.read(1), 10) == b"x"
        theirs.close()
        writer.close()


async def test_what_fails_unexpectedly_is_counted_on_the_metrics_page_and_done_when_it_works_again(
    mill: Mill,
) -> None:
    await mill.add_users("ann")
    before = FAILURES.labels("extraction worker", "broken")._value.get()
    async with mill.working() as worker:
        await mill.until(lambda: worker.port > 0, what="the worker's start")
        async with mill.database.transaction() as session:  # as a migration that went wrong would
            await session.execute(text("alter table extraction_batch rename column planner_id to mislaid"))
        await mill.until(
            lambda: FAILURES.labels("extraction worker", "broken")._value.get() > before, what="a failure that counts"
        )
        async with httpx.AsyncClient(timeout=60) as http:
            shown = await http.get(f"http://127.0.0.1:{worker.port}/metrics")
        assert 'lorry_background_failures_total{kind="broken",work="extraction worker"}' in shown.text
        async with mill.database.transaction() as session:
            await session.execute(text("alter table extraction_batch rename column mislaid to planner_id"))
        batch = await mill.submit("ann")
        assert (await mill.until_ended(batch.id)).progress.done == 1
