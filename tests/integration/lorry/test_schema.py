"""Migrations of large tables: others write meanwhile, and what was broken off is done again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from kit.database import Database
from lorry.schema import migrate
from tests.support.migrations import downgrade
from tests.support.waiting import until
from transcripts.store import Added, TranscriptStore
from transcripts.transcript import Transcript, Turn

BEES = Transcript(turns=(Turn(role="user", text="I keep bees", time=None),), source_format="openai-messages")
_BUILDING = """
select pid from pg_stat_progress_create_index
where datname = current_database() and phase = 'waiting for old snapshots'
"""
_INDEXES = """
select c.relname, i.indisvalid from pg_index i join pg_class c on c.oid = i.indexrelid
where i.indrelid = 'transcript'::regclass and c.relname in
    ('ix_transcript_marks', 'ix_transcript_sought', 'ix_transcript_unmarked')
order by c.relname
"""


@asynccontextmanager
async def long_look(database: Database) -> AsyncIterator[None]:
    """Have a transaction open that an index which is being built must wait for, as a backup's."""
    async with database.engine.connect() as connection:
        await connection.execution_options(isolation_level="REPEATABLE READ")
        await connection.execute(text("select 1"))
        yield


async def building(database: Database) -> list[int]:
    async with database.reading() as session:
        return list((await session.execute(text(_BUILDING))).scalars())


async def connected(database: Database) -> set[int]:
    async with database.reading() as session:
        return set((await session.execute(text("select pid from pg_stat_activity"))).scalars())


async def waits_without_a_statement(database: Database, *, but: set[int]) -> bool:
    query = "select pid from pg_stat_activity where datname = current_database() and query ilike 'commit%'"
    async with database.reading() as session:
        return bool(set((await session.execute(text(query))).scalars()) - but)


async def indexes(database: Database) -> dict[str, bool]:
    async with database.reading() as session:
        return {row[0]: row[1] for row in await session.execute(text(_INDEXES))}


async def import_bees(database: Database) -> Added:
    async with database.transaction() as session:
        return await TranscriptStore(session).add("default", "ann", [BEES])


async def test_transcripts_are_imported_while_their_indexes_are_built_and_another_process_waits_to_migrate(
    database: Database,
) -> None:
    await downgrade(database, "0015_publishing")
    async with long_look(database):
        first = asyncio.create_task(migrate(database))
        await until(lambda: building(database))
        others = await connected(database)
        second = asyncio.create_task(migrate(database))
        await until(lambda: waits_without_a_statement(database, but=others))
        assert await import_bees(database) == Added(new=1, known=0)
        assert await building(database), "and is not done"
    await asyncio.gather(first, second)
    assert await indexes(database) == dict.fromkeys(
        ("ix_transcript_marks", "ix_transcript_sought", "ix_transcript_unmarked"), True
    )


async def test_an_index_whose_building_was_broken_off_is_built_again(database: Database) -> None:
    await downgrade(database, "0015_publishing")
    async with long_look(database):
        broken_off = asyncio.create_task(migrate(database))
        await until(lambda: building(database))
        [pid] = await building(database)
        async with database.reading() as session:
            await session.execute(text("select pg_terminate_backend(:pid)"), {"pid": pid})
        with pytest.raises(SQLAlchemyError):
            await broken_off
    assert list(await indexes(database)) == ["ix_transcript_sought"]
    assert not (await indexes(database))["ix_transcript_sought"]
    await migrate(database)
    assert await indexes(database) == dict.fromkeys(
        ("ix_transcript_marks", "ix_transcript_sought", "ix_transcript_unmarked"), True
    )
    await import_bees(database)
