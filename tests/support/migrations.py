"""A database as an earlier release has left it."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from kit.database import Database
from lorry import schema


async def downgrade(database: Database, revision: str) -> None:
    """Take the schema back to `revision`; what later ones have added is gone."""

    def take_back(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(schema._MIGRATIONS))
        config.attributes["connection"] = connection
        command.downgrade(config, revision)

    async with database.engine.connect() as connection:
        await connection.run_sync(take_back)
        await connection.commit()
