"""What this room does when a user is erased: stop their jobs, take what was written and trained for them away.

Each step may be done again after it was killed: it finds what is left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from kit.database import Database
from training.erasure.remote import RemoteWritings
from training.erasure.repository import TrainingErasureRepository
from training.writers.settings import WriterSettings


class TrainingErasure:
    """Erases users from trainings; the caller has seen to it that nothing new of theirs can come in."""

    def __init__(self, database: Database, *, writers: WriterSettings) -> None:
        """Erase from `database`, and with the key in `writers` at the question writer's service."""
        self._database = database
        self.writings = RemoteWritings(database, writers)

    async def stop_jobs(self, tenant: str, user: str, *, pseudonym: str) -> list[str]:
        """End the user's jobs; return the workers that still hold one, and stop at their next step."""
        async with self._database.transaction() as session:
            repository = TrainingErasureRepository(session)
            await repository.hide_in_campaigns(tenant=tenant, user=user, pseudonym=pseudonym)
            await repository.stop_jobs(tenant=tenant, user=user)
            return await repository.holders(tenant=tenant, user=user)

    async def counts(self, tenant: str, user: str) -> dict[str, int]:
        """Return how many rows there are of the user, by kind, without those kinds of which there are none."""
        async with self._database.reading() as session:
            found = await TrainingErasureRepository(session).counts(tenant=tenant, user=user)
        return {kind: count for kind, count in found.items() if count}

    async def forget(
        self, tenant: str, user: str, *, erasure_id: str, pseudonym: str, version_ids: Sequence[str] = ()
    ) -> None:
        """Remove jobs with all that hangs on them, DBOS's records included, and ask every worker to clear its disk.

        Args:
            tenant: whose user.
            user: who is erased; none of their jobs may be active.
            erasure_id: by which workers' answers are asked for.
            pseudonym: what stands in the user's place beside costs.
            version_ids: the user's versions, which others' evaluations may have fetched to compare with.
        """
        async with self._database.transaction() as session:
            repository = TrainingErasureRepository(session)
            jobs = await repository.jobs(tenant=tenant, user=user)
            # What workers are asked comes before what it is known from is gone.
            await repository.ask_workers(erasure_id, job_ids=[row.id for row in jobs], version_ids=version_ids)
        runs = [f"{row.id}.{run}" for row in jobs for run in range(1, row.run + 1)]
        if runs:
            from training.jobs.durable import delete_runs  # slow to import, and not there where nothing was trained

            await asyncio.to_thread(delete_runs, self._database.settings.database_url, runs)
        async with self._database.transaction() as session:
            await TrainingErasureRepository(session).remove(tenant=tenant, user=user, pseudonym=pseudonym)

    async def waiting_workers(self, erasure_id: str) -> list[str]:
        """Return the workers whose disk is not cleared, as sentences."""
        async with self._database.reading() as session:
            found = await TrainingErasureRepository(session).waiting(erasure_id)
        return [
            f"worker {each.worker_id}"
            + (
                ""
                if each.alive
                else f": silent since {each.heard_at:%Y-%m-%d %H:%M}"
                if each.heard_at
                else ": forgotten"
            )
            for each in found
        ]

    async def ended_workers(self, erasure_id: str) -> list[str]:
        """Return what became of every worker's disk, as sentences."""
        async with self._database.reading() as session:
            found = await TrainingErasureRepository(session).ended(erasure_id)
        return [
            f"worker {each.worker_id}: "
            + (f"{each.removed} files removed" if each.outcome == "cleared" else "declared gone")
            for each in found
        ]

    async def give_up_worker(self, erasure_id: str, worker_id: str) -> bool:
        """Take a worker for gone, with its disk; False when nothing is waited for from it."""
        async with self._database.transaction() as session:
            return await TrainingErasureRepository(session).end(erasure_id, worker_id, outcome="gone")
