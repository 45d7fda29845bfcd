import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from kit.database import Database
from kit.errors import DatabaseUnavailable, InvalidValue
from kit.settings import DatabaseSettings
from tests.support.waiting import until


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
    hasty = Database(database_settings.model_copy(update={"database_timeout_seconds": 2.0}))
    with pytest.raises(DatabaseUnavailable, match="QueryCanceled"):
        async with hasty.transaction() as session:
            await session.execute(text("select pg_sleep(5)"))
    await hasty.close()


async def test_callers_beyond_the_pool_are_served_in_order(database_settings: DatabaseSettings) -> None:
    narrow = Database(database_settings.model_copy(update={"database_pool_size": 1}))
    served: list[int] = []

    async def call(number: int) -> None:
        async with narrow.reading() as session:
            await session.execute(text("select 1"))
        served.append(number)

    await asyncio.gather(*[call(number) for number in range(20)])
    assert served == list(range(20))
    hasty = Database(database_settings.model_copy(update={"database_pool_size": 1, "database_timeout_seconds": 2.0}))
    async with hasty.transaction():
        with pytest.raises(DatabaseUnavailable, match="taken"):
            await hasty.check()
    await hasty.check()
    await narrow.close()
    await hasty.close()


async def _insert_and_fail(database: Database) -> None:
    async with database.transaction() as session:
        await session.execute(text("insert into sample values (1)"))
        await session.execute(text("select 1 from nowhere"))


async def test_a_statement_that_waits_too_long_for_a_row_says_try_again(database_settings: DatabaseSettings) -> None:
    hasty = Database(database_settings.model_copy(update={"database_lock_timeout_seconds": 0.2}))
    async with hasty.transaction() as session:
        await session.execute(text("create table sample (value int)"))
        await session.execute(text("insert into sample values (1)"))
    async with hasty.transaction() as holder:
        await holder.execute(text("select * from sample for update"))
        with pytest.raises(DatabaseUnavailable, match="LockNotAvailable"):
            async with hasty.transaction() as session:
                await session.execute(text("update sample set value = 2"))
    await hasty.close()


async def test_a_transaction_that_forgot_itself_is_ended(database_settings: DatabaseSettings) -> None:
    hasty = Database(database_settings.model_copy(update={"database_idle_transaction_seconds": 0.1}))
    with pytest.raises(DatabaseUnavailable):
        await _dawdle(hasty)
    await hasty.check()
    await hasty.close()


@pytest.mark.parametrize(
    ("statement", "value"),
    [
        ("select cast(:value as int)", 2**31),
        ("select cast(:value as bigint)", 2**80),
        ("select cast(:value as text)", "nul\x00"),
        ("select cast(:value as text)", "\ud800"),
        ("select cast(cast(:value as text) as timestamptz)", "yesterdayish"),
    ],
)
@pytest.mark.parametrize("how", ["transaction", "reading"])
async def test_a_value_that_no_row_can_hold_is_the_callers_mistake(
    database: Database, how: str, statement: str, value: object
) -> None:
    with pytest.raises(InvalidValue):
        async with getattr(database, how)() as session:
            await session.execute(text(statement), {"value": value})
    await database.check()


async def test_connections_that_died_while_idle_are_replaced_unseen(
    database: Database, database_settings: DatabaseSettings
) -> None:
    sessions = [database.transaction() for _ in range(3)]
    for each in sessions:
        await each.__aenter__()
    for each in sessions:
        await each.__aexit__(None, None, None)
    other = Database(database_settings)
    async with other.transaction() as session:
        await session.execute(
            text(
                "select pg_terminate_backend(pid, 30000) from pg_stat_activity "  # waits for their ends
                "where datname = current_database() and pid <> pg_backend_pid()"
            )
        )
    await other.close()
    for _ in range(3):
        await database.check()


async def test_a_reading_session_opens_no_transaction(database: Database) -> None:
    async with database.reading() as session:
        first = (await session.execute(text("select pg_current_xact_id()::text"))).scalar_one()
        assert (await session.execute(text("select pg_current_xact_id()::text"))).scalar_one() != first
    async with database.transaction() as session:
        first = (await session.execute(text("select pg_current_xact_id()::text"))).scalar_one()
        assert (await session.execute(text("select pg_current_xact_id()::text"))).scalar_one() == first


async def _dawdle(database: Database) -> None:
    async with database.transaction() as session:
        await session.execute(text("select 1"))
        await asyncio.sleep(1)
        await session.execute(text("select 1"))


@pytest.mark.parametrize("how", ["transaction", "reading"])
async def test_a_server_that_leaves_in_the_middle_is_unavailable_and_then_back(
    database: Database, database_settings: DatabaseSettings, how: str
) -> None:
    async with database.transaction() as session:
        await session.execute(text("create table sample (value int)"))
    other = Database(database_settings)
    with pytest.raises(DatabaseUnavailable):
        await _lose_the_server(database, other, how)
    await other.close()
    async with database.transaction() as session:
        assert (await session.execute(text("select count(*) from sample"))).scalar_one() == 0


async def _lose_the_server(database: Database, other: Database, how: str) -> None:
    async with getattr(database, how)() as session:
        pid = (await session.execute(text("select pg_backend_pid()"))).scalar_one()
        if how == "transaction":
            await session.execute(text("insert into sample values (1)"))
        async with other.transaction() as killer:
            await killer.execute(text("select pg_terminate_backend(:pid)"), {"pid": pid})

        async def has_left() -> bool:
            query = text("select count(*) from pg_stat_activity where pid = :pid")
            async with other.reading() as looking:
                return not (await looking.execute(query, {"pid": pid})).scalar_one()

        await until(has_left)
        await session.execute(text("select 1"))
