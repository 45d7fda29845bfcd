"""A conductor that meets what nobody foresaw: it is heard of, and erasures go on."""

from __future__ import annotations

import asyncio

from sqlalchemy import text

from kit.background import FAILURES
from kit.database import Database
from tests.support.erasing import Erasing
from tests.support.training_jobs import talks
from tests.support.waiting import until
from transcripts.store import TranscriptStore

_OF = "conductor of erasures"


async def test_a_conductor_outlives_what_nobody_foresaw(erasing: Erasing, database: Database) -> None:
    async with database.transaction() as session:
        await TranscriptStore(session).add("default", "ann", talks("ann", count=1))
    before, stop = FAILURES.labels(_OF, "broken")._value.get(), asyncio.Event()
    await _execute(database, "alter table erasure rename to mislaid")  # as a migration that went wrong
    conducting = asyncio.create_task(erasing.conductor.run(stop))
    try:

        async def has_failed_twice() -> bool:
            return FAILURES.labels(_OF, "broken")._value.get() >= before + 2

        await until(has_failed_twice, within_seconds=60)
        assert not conducting.done()
        await _execute(database, "alter table mislaid rename to erasure")
        task = await erasing.ask("ann")

        async def is_erased() -> bool:
            stores = (await erasing.desk.report("default", task.user)).stores
            return any(each.store == "transcripts" and each.state == "done" for each in stores)

        await until(is_erased, within_seconds=60)
    finally:
        stop.set()
        await conducting


async def _execute(database: Database, statement: str) -> None:
    async with database.transaction() as session:
        await session.execute(text(statement))
