"""The one migration history, run by `lorry up`, by deployments and by tests alike."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

from kit.database import Database

_MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK_KEY = 0x10_55_19  # any constant will do: two processes that migrate at once take turns


async def migrate(database: Database, *, revision: str = "head") -> None:
    """Bring the schema to `revision`; concurrent callers wait for each other."""
    async with database.engine.connect() as connection:
        await connection.execute(text("set statement_timeout = 0"))
        await connection.execute(text("select pg_advisory_lock(:key)"), {"key": _LOCK_KEY})
        try:
            await connection.commit()
            await connection.run_sync(_upgrade, revision)
            await connection.commit()
        finally:
            await connection.rollback()
            await connection.execute(text("select pg_advisory_unlock(:key)"), {"key": _LOCK_KEY})
            await connection.commit()


def _upgrade(connection: Connection, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
