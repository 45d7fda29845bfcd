"""How many gateways there are: each says every few seconds that it lives, and counts who does."""

from __future__ import annotations

import uuid
from datetime import timedelta

from kit.database import Database
from serving.gateway.chores import Chore
from serving.gateway.limits.repository import CopyRepository

_MISSED = 3


class Copies:
    """This gateway among the others; while the database is silent, as many as were counted last."""

    def __init__(self, database: Database, *, every_seconds: float) -> None:
        self._database = database
        self._within = timedelta(seconds=_MISSED * every_seconds)
        self._id = uuid.uuid4().hex
        self.count = 1
        self.chore = Chore(self._hear, every_seconds=every_seconds, last=self._leave)

    async def _hear(self) -> None:
        async with self._database.transaction() as session:
            repository = CopyRepository(session)
            await repository.hear(self._id)
            self.count = max(1, await repository.count(within=self._within))

    async def _leave(self) -> None:
        async with self._database.transaction() as session:
            await CopyRepository(session).leave(self._id)
