"""Transcripts of an earlier release, which knew no states of conversations, are compared beside all else.

Any number of processes may do so: each passes over users whose transcripts somebody else changes just now. Until
somebody is compared, all their states count, as they did in that release.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from kit.background import again_and_again
from kit.database import Database
from training.jobs.triggers.repository import TrainedRepository
from transcripts.store import TranscriptStore

_USERS_AT_ONCE = 100
_EVERY_SECONDS = 60.0  # pods of the release before may go on storing for a while
_FIRST = ("", "")


class Marking:
    """Marks what is not marked; killed at any point, whoever comes next goes on."""

    def __init__(self, database: Database, *, transcripts_at_once: int = 50) -> None:
        """Begin with the first user; whoever imports waits for so many of their transcripts at most."""
        self._database = database
        self._limit = transcripts_at_once
        self._after = _FIRST

    async def mark_all(self) -> None:
        """Mark what is not marked, a user at a time; called again after a failure, it goes on with the next user."""
        while owners := await self._owners():
            for self._after in owners:
                while await self._mark_some(*self._after):
                    pass
        self._after = _FIRST

    async def _owners(self) -> list[tuple[str, str]]:
        async with self._database.reading() as session:
            return await TranscriptStore(session).unmarked_users(after=self._after, limit=_USERS_AT_ONCE)

    async def _mark_some(self, tenant: str, user: str) -> bool:
        """Mark some of a user's transcripts; say whether there were any."""
        async with self._database.transaction() as session:
            marked = await TranscriptStore(session).mark(tenant, user, limit=self._limit)
            # Their words counted more than once, and so they did when their user was trained.
            ids = marked.had_counted
            await TrainedRepository(session).recount(tenant=tenant, user=user, transcript_ids=ids)
        return marked.transcripts > 0


@asynccontextmanager
async def marking(database: Database) -> AsyncIterator[None]:
    """Mark again and again while the block runs."""
    chore = again_and_again(Marking(database).mark_all, _EVERY_SECONDS, of="marking of transcripts")
    task = asyncio.create_task(chore)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
