"""What a worker does besides its users, now and then: taking over from dead workers, and sweeping old batches up."""

from __future__ import annotations

import logging
from datetime import timedelta

from kit.database import Database
from serving.jobs.delivery import settle
from serving.jobs.errors import WorkersDied
from serving.jobs.fleet.repository import WorkerRepository
from serving.jobs.models import BatchRow
from serving.jobs.outcome import explain
from serving.jobs.repository import BatchRepository
from serving.jobs.settings import ExtractionWorkerSettings
from serving.jobs.states import UserState
from serving.jobs.users.repository import UserRepository
from serving.jobs.vault import Place, Vault

_FORGET_WORKERS_DAYS = 30.0
_SWEPT_AT_ONCE = 20
_PAGE = 500
_log = logging.getLogger(__name__)


class Upkeep:
    """The chores of all workers; each is done by whoever comes first and hurts nobody when done twice."""

    def __init__(self, settings: ExtractionWorkerSettings, *, database: Database, vault: Vault) -> None:
        self._settings = settings
        self._database = database
        self._vault = vault

    async def adopt(self) -> None:
        """Let the users of workers that have died wait for another turn."""
        async with self._database.reading() as session:
            dead = await WorkerRepository(session).dead()
        for worker_id in dead:
            if worker_id != self._settings.worker_id:
                await self.bury(worker_id)

    async def bury(self, worker_id: str) -> None:
        """Take its users from a worker that died; those under whom too many have died are given up."""
        async with self._database.transaction() as session:
            given_up = await UserRepository(session).orphan(worker_id, crashes=self._settings.extraction_crashes)
        for hand in given_up:
            async with self._database.transaction() as session:
                error = explain(WorkersDied())
                await settle(session, hand, worker_id=worker_id, state=UserState.FAILED, values={"error": error})
            _log.error("a user's extraction was given up: too many workers died under it")

    async def sweep(self) -> None:
        """Remove batches that ended long ago, and everything that they keep."""
        async with self._database.reading() as session:
            repository = BatchRepository(session)
            before = await repository.now() - timedelta(days=self._settings.extraction_results_days)
            old = await repository.ended_before(before, limit=_SWEPT_AT_ONCE)
        for batch in old:
            await self._sweep_results(batch)
            async with self._database.transaction() as session:
                await BatchRepository(session).forget(batch.id)
        async with self._database.transaction() as session:
            await WorkerRepository(session).forget(silent_days=_FORGET_WORKERS_DAYS)

    async def _sweep_results(self, batch: BatchRow) -> None:
        after = ""
        while True:
            async with self._database.reading() as session:
                touched = await UserRepository(session).touched(batch.id, after=after, limit=_PAGE)
            if not touched:
                return
            for user, run in touched:
                if run == 1:
                    await self._vault.remove(Place(tenant=batch.tenant, user=user, batch_id=batch.id, run=run))
                else:
                    await self._vault.erase(batch.tenant, user, batch.id)
            after = touched[-1][0]
