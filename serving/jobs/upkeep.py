"""What a worker does besides its users, now and then: taking over from dead workers, and sweeping old batches up."""

from __future__ import annotations

import logging
from datetime import timedelta

from kit.database import Database
from kit.errors import LorryError
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


async def erase_user(database: Database, vault: Vault, *, tenant: str, user: str) -> dict[str, int]:
    """Remove everything that batches keep of a user: results in the object store, and their name in every batch.

    The batches' counts stay true: a row without a name is left. Who is in hand is let go of within a poll; asking again
    removes what a worker wrote in the same moment. Returns how many objects and how many batches there were.

    Raises:
        DatabaseUnavailable, StorageUnavailable: what was done until then stays done; ask again.
    """
    async with database.reading() as session:
        batch_ids = await UserRepository(session).batches_of(tenant, user)
    for batch_id in batch_ids:
        async with database.transaction() as session:
            batches = BatchRepository(session)
            await batches.get(batch_id, lock=True)
            await UserRepository(session).blank(batch_id, user)
            await batches.end_when_over(batch_id)
    try:
        objects = await vault.erase(tenant, user)
    except LorryError:
        _log.warning("a user's results may not all be removed yet")
        raise
    return {"objects": objects, "batches": len(batch_ids)}
