"""Taking a user out of every batch: who is in hand is let go of first, and a row without a name is left.

What was put away for them lies under their prefix in the object store, sealed under a key that is destroyed with their
adapters; the registry removes the prefix when it forgets them.
"""

from __future__ import annotations

from kit.database import Database
from serving.jobs.repository import BatchRepository
from serving.jobs.users.repository import UserRepository


class BatchErasure:
    """Erases users from batches; the caller has put the sign up, so that nobody takes them in hand any more."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def count(self, tenant: str, user: str) -> int:
        """Return how many batches name the user."""
        async with self._database.reading() as session:
            return len(await UserRepository(session).batches_of(tenant, user))

    async def erase(self, tenant: str, user: str) -> list[str]:
        """Take the user's name out of their batches, whose counts stay true; a batch that waited for them alone ends.

        Returns:
            The workers that have the user in hand and let go of them within a poll; nothing when no name is left.

        Raises:
            DatabaseUnavailable: what was done until then stays done; ask again.
        """
        async with self._database.reading() as session:
            batch_ids = await UserRepository(session).batches_of(tenant, user)
        holders = {await self._blank(batch_id, user) for batch_id in batch_ids}
        return sorted(holder for holder in holders if holder is not None)

    async def _blank(self, batch_id: str, user: str) -> str | None:
        async with self._database.transaction() as session:
            batches, users = BatchRepository(session), UserRepository(session)
            await batches.get(batch_id, lock=True)
            holder = await users.holder(batch_id, user)
            if holder is None:
                await users.blank(batch_id, user)
                await batches.end_when_over(batch_id)
            return holder
