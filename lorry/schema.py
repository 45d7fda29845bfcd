"""The one migration history, run by `lorry up`, by deployments and by tests alike.

`python -m lorry.schema` brings the database of LORRY_DATABASE_URL to the newest schema; running it again is no error.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection

from kit.database import Database
from kit.errors import LorryError
from kit.settings import DatabaseSettings

_MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK_KEY = 0x10_55_19  # any constant will do: two processes that migrate at once take turns
_TURN_SECONDS = 0.2
_TABLE_LOCK_SECONDS = 10
_DAY_SECONDS = 86_400.0  # an index on a large table, or another process that makes one, takes as long as it needs


async def migrate(database: Database, *, revision: str = "head") -> None:
    """Bring the schema to `revision`; concurrent callers wait for each other.

    Raises:
        DatabaseUnavailable: when PostgreSQL cannot be reached, or refuses the connection.
    """
    await database.check()
    patience = {"database_timeout_seconds": _DAY_SECONDS, "database_lock_timeout_seconds": _DAY_SECONDS}
    patient = Database(database.settings.model_copy(update=patience))
    try:
        await _migrate(patient, revision)
    finally:
        await patient.close()


async def _migrate(database: Database, revision: str) -> None:
    async with database.engine.connect() as connection:
        await _take_turn(connection)
        try:
            # A change of a table that waits for a long transaction makes everybody else wait behind it.
            await connection.execute(text(f"set lock_timeout = '{_TABLE_LOCK_SECONDS}s'"))
            await connection.commit()
            await connection.run_sync(_upgrade, revision)
            await connection.commit()
        finally:
            await connection.rollback()
            await connection.execute(text("select pg_advisory_unlock(:key)"), {"key": _LOCK_KEY})
            await connection.commit()


async def _take_turn(connection: AsyncConnection) -> None:
    """Wait until nobody else migrates, without a statement that waits: an index that is built would wait for it."""
    while True:
        taken = await connection.execute(text("select pg_try_advisory_lock(:key)"), {"key": _LOCK_KEY})
        await connection.commit()
        if taken.scalar_one():
            return
        await asyncio.sleep(_TURN_SECONDS)


def _upgrade(connection: Connection, revision: str) -> None:
    from alembic import command  # slow to import, and every command imports this module
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def main() -> None:
    """Migrate; exit code 2 for settings that cannot be used, 1 for a database that cannot be."""
    settings = DatabaseSettings.read_or_exit("lorry.schema")
    try:
        asyncio.run(_migrate_once(settings))
    except LorryError as exc:
        sys.stderr.write(f"lorry.schema: {exc.message}\n")
        raise SystemExit(1) from exc
    sys.stdout.write("the schema is current\n")


async def _migrate_once(settings: DatabaseSettings) -> None:
    database = Database(settings)
    try:
        await migrate(database)
    finally:
        await database.close()


if __name__ == "__main__":
    main()
