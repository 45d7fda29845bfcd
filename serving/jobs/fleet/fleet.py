"""The workers of one database."""

from __future__ import annotations

from typing import Any

from kit.database import Database
from serving.jobs.fleet.repository import WorkerRepository


class Fleet:
    """Who works batches off, and who did."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def workers(self) -> list[dict[str, Any]]:
        """Return every worker: id, host, state (alive, lapsed or left), slots, users in hand, when it was heard."""
        async with self._database.reading() as session:
            return await WorkerRepository(session).all()
