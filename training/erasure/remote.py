"""What a question writer's service keeps of a user: batches, which are cancelled and deleted there."""

from __future__ import annotations

from kit.database import Database
from kit.errors import LorryError
from training.config import TrainingRequest, resolve
from training.erasure.repository import TrainingErasureRepository
from training.jobs.models import JobRow
from training.jobs.writings.repository import WritingRepository
from training.writers.factory import make_writer
from training.writers.settings import WriterSettings
from training.writers.spool import MemorySpool
from training.writers.state import WriterState


class RemoteWritings:
    """The batches of one user at the service of `writers`."""

    def __init__(self, database: Database, writers: WriterSettings) -> None:
        self._database = database
        self._writers = writers

    async def count(self, *, tenant: str, user: str) -> int:
        """Return how many batches the service still keeps, as far as is known."""
        return sum(len(set(state.batches) - set(state.deleted)) for _, state in await self._kept(tenant, user))

    async def discard(self, *, tenant: str, user: str) -> list[str]:
        """Cancel and delete the user's batches, as far as the service lets that be done now.

        Returns:
            What is still waited for, as sentences; nothing when all is deleted.
        """
        waits_for = []
        for row, state in await self._kept(tenant, user):
            try:
                state = await self._discard(row, state)
            except LorryError as exc:
                waits_for.append(f"batches of job {row.id}: {type(exc).__name__}")
                continue
            if not state.discarded:
                left = len(set(state.batches) - set(state.deleted))
                waits_for.append(f"batches of job {row.id}: {left} that run are cancelled and deleted when they end")
        return waits_for

    async def _kept(self, tenant: str, user: str) -> list[tuple[JobRow, WriterState]]:
        async with self._database.reading() as session:
            rows = await TrainingErasureRepository(session).jobs(tenant=tenant, user=user)
            states = [(row, await WritingRepository(session).state(row.id)) for row in rows]
        return [(row, state) for row, state in states if state is not None and not state.discarded]

    async def _discard(self, row: JobRow, state: WriterState) -> WriterState:
        """Take one step, and keep what came of it: what was deleted is not asked for again."""
        async with self._database.reading() as session:
            claimed = await WritingRepository(session).claimed_batches(except_job=row.id)
        config = resolve(
            TrainingRequest(), arguments=dict(row.request.get("settings", {})), environment={"base": row.base}
        )
        writer = make_writer(
            self._writers, config.dataset, spool=MemorySpool(), redactor=None, key=row.id, claimed=claimed
        )
        state = await writer.discard(state)
        async with self._database.transaction() as session:
            await WritingRepository(session).keep(row.id, state=state.to_json())
        return state
