import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from kit.database import Database
from kit.errors import DatabaseUnavailable
from kit.settings import DatabaseSettings


async def test_what_a_block_did_is_committed_when_it_ends(database: Database) -> None:
    async with database.transaction() as session:
        await session.execute(text("create table sample (value int)"))
        await session.execute(text("insert into sample values (1)"))
    async with database.transaction() as session:
        assert (await session.execute(text("select value from sample"))).scalar_one() == 1


async def test_what_a_block_did_is_undone_when_it_raises(database: Database) -> None:
    async with database.transaction() as session:
        await session.execute(text("create table sample (value int)"))
    with pytest.raises(ProgrammingError):
        await _insert_and_fail(database)
    async with database.transaction() as session:
        assert (await session.execute(text("select count(*) from sample"))).scalar_one() == 0


async def test_a_database_that_is_not_there_is_unavailable() -> None:
    nowhere = Database(DatabaseSettings(database_url="postgresql+asyncpg://nobody@127.0.0.1:1/none"))
    with pytest.raises(DatabaseUnavailable):
        await nowhere.check()
    await nowhere.close()


async def test_the_callers_own_failures_are_not_taken_for_the_databases(database: Database) -> None:
    with pytest.raises(FileNotFoundError):
        async with database.transaction():
            raise FileNotFoundError("a transcript")


async def test_a_statement_that_takes_too_long_is_ended(database_settings: DatabaseSettings) -> None:
    hasty = Database(database_settings.model_copy(update={"database_timeout_seconds": 0.5}))
    with pytest.raises(Exception, match="statement timeout"):
        async with hasty.transaction() as session:
            await session.execute(text("select pg_sleep(5)"))
    await hasty.close()


async def _insert_and_fail(database: Database) -> None:
    async with database.transaction() as session:
        await session.execute(text("insert into sample values (1)"))
        await session.execute(text("select 1 from nowhere"))
