"""The workers, for people."""

from __future__ import annotations

from typing import Any

from kit.database import Database
from training.jobs.fleet.repository import WorkerRepository


class Fleet:
    """Every worker of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def workers(self) -> list[dict[str, Any]]:
        """Return every worker: alive, lapsed (silent for longer than its lease) or left."""
        async with self._database.reading() as session:
            return await WorkerRepository(session).all()
