"""Planning a batch: who is in it, which version is asked about whom, and who needs or allows no work.

Every step is kept as it is done, and none does harm twice: a planner that is killed is followed by another, which goes
on where it was.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from kit.database import Database
from kit.errors import DatabaseUnavailable, LorryError, StorageUnavailable
from kit.together import all_of
from registry.client import RegistryClient
from registry.errors import RegistryUnavailable
from registry.manifest import DEFAULT_ADAPTER, LIVE, AdapterRef, Manifest, Owner
from serving.errors import BankInvalid
from serving.extraction.bank import Bank
from serving.extraction.bank.shelf import BankShelf
from serving.jobs.batches import require_users
from serving.jobs.delivery import end_waiting
from serving.jobs.errors import TooManyUsers
from serving.jobs.limits import TenantLimits
from serving.jobs.models import BatchRow
from serving.jobs.outcome import explain
from serving.jobs.planning.repository import Known, KnownProfiles
from serving.jobs.repository import BatchRepository
from serving.jobs.states import BatchState, UserState
from serving.jobs.users.repository import UserRepository

_PAGE = 1000
_CHUNK = 128
_AT_ONCE = 16
_AWAY = (RegistryUnavailable, DatabaseUnavailable, StorageUnavailable)
_log = logging.getLogger(__name__)


class Planner:
    """Turns queued batches into running ones."""

    def __init__(
        self, *, worker_id: str, database: Database, registry: RegistryClient, bank: Bank, limits: TenantLimits
    ) -> None:
        self._worker_id = worker_id
        self._database = database
        self._registry = registry
        self._banks = BankShelf(database, standard=bank)
        self._limits = limits

    async def plan_next(self) -> bool:
        """Plan the oldest batch that waits for it; say whether there was one.

        Raises:
            RegistryUnavailable, DatabaseUnavailable: when one of them is away; what was planned is kept.
        """
        async with self._database.transaction() as session:
            batch = await BatchRepository(session).claim_planning(self._worker_id)
        if batch is None:
            return False
        try:
            if batch.selection["everybody"]:
                await self._list_everybody(batch)
            await self._resolve_all(batch)
        except _AWAY:
            raise
        except TooManyUsers as exc:
            await self._fail(batch, exc)
            return True
        if batch.selection["only"] == "stale":
            await self._skip_fresh(batch)
        await self._begin(batch)
        return True

    async def _list_everybody(self, batch: BatchRow) -> None:
        """Put everybody into the batch who has a live version of the default adapter."""
        async with self._database.reading() as session:
            most = (await self._limits.get_in(session, batch.tenant)).max_users
        cursor: str | None = None
        while True:
            page = await self._registry.list_adapters(batch.tenant, cursor=cursor, limit=_PAGE, alias=LIVE)
            live = [found for found in page.adapters if found.adapter == DEFAULT_ADAPTER and not found.owner.shared]
            users = [
                {"user_id": each.owner.user, "version_id": each.live.version_id, "version": each.live.version}
                for each in live
                if each.live is not None
            ]
            async with self._database.transaction() as session:
                repository = UserRepository(session)
                await repository.add(batch.id, users)
                count = await repository.count(batch.id)
                await BatchRepository(session).update(batch.id, {"users": count})
            require_users(count, most=most)
            cursor = page.next_cursor
            if cursor is None:
                return

    async def _resolve_all(self, batch: BatchRow) -> None:
        """Ask the registry about everybody whose version is not known; who has none comes to an end here."""
        while True:
            async with self._database.reading() as session:
                users = await UserRepository(session).unplanned(batch.id, limit=_CHUNK)
            if not users:
                return
            found = await self._resolve_chunk(batch.tenant, users)
            async with self._database.transaction() as session:
                repository = UserRepository(session)
                if not await self._still_queued(batch, BatchRepository(session)):
                    return
                for user, manifest in found:
                    if isinstance(manifest, Manifest):
                        await repository.set_version(
                            batch.id, user, version_id=manifest.version_id, version=manifest.version
                        )
                    else:
                        await end_waiting(session, batch.id, user, UserState.FAILED, error=explain(manifest))

    async def _still_queued(self, batch: BatchRow, batches: BatchRepository) -> bool:
        """Lock the batch; whether it was neither canceled nor planned meanwhile."""
        row = await batches.get(batch.id, lock=True)
        return row is not None and row.planned_at is None and row.ended_at is None

    async def _resolve_chunk(self, tenant: str, users: Sequence[str]) -> list[tuple[str, Manifest | LorryError]]:
        gate = asyncio.Semaphore(_AT_ONCE)

        async def resolve(user: str) -> tuple[str, Manifest | LorryError]:
            async with gate:
                try:
                    ref = AdapterRef(owner=Owner(tenant=tenant, user=user))
                    return user, (await self._registry.resolve(ref)).manifest
                except _AWAY:
                    raise
                except LorryError as exc:
                    return user, exc

        return await all_of(resolve(user) for user in users)

    async def _skip_fresh(self, batch: BatchRow) -> None:
        """Bring everybody to an end whose profile is by this version and this bank, and young enough."""
        age = batch.selection.get("max_age_days")
        try:
            asked = await self._banks.bank_of(batch.tenant)
        except BankInvalid:  # with which nobody can be asked, either: each user's failure says so
            return
        bank, after = (asked.name, asked.version), ""
        while True:
            async with self._database.reading() as session:
                planned = await UserRepository(session).planned(batch.id, after=after, limit=_CHUNK)
                if not planned:
                    return
                known = await KnownProfiles(session).of(batch.tenant, [user for user, _ in planned])
                now = await BatchRepository(session).now()
            async with self._database.transaction() as session:
                for user, version_id in planned:
                    profile = known.get(user)
                    if profile is not None and is_fresh(
                        profile, version_id=version_id, bank=bank, now=now, max_age_days=age
                    ):
                        await end_waiting(session, batch.id, user, UserState.SKIPPED)
            after = planned[-1][0]

    async def _begin(self, batch: BatchRow) -> None:
        """Let the batch's users be taken in hand; a batch of which nobody is left has ended."""
        async with self._database.transaction() as session:
            repository = BatchRepository(session)
            if not await self._still_queued(batch, repository):
                return
            row = await repository.get(batch.id)
            now = await repository.now()
            values: dict[str, Any] = {"planned_at": now, "planner_id": None}
            if row is not None and row.state == BatchState.QUEUED:  # and not paused meanwhile
                values |= {"state": BatchState.RUNNING, "going_since": now}
            await repository.update(batch.id, values)
            await repository.end_when_over(batch.id)

    async def _fail(self, batch: BatchRow, exc: LorryError) -> None:
        _log.warning("a batch extraction cannot be planned: %s", type(exc).__name__)
        async with self._database.transaction() as session:
            repository = BatchRepository(session)
            if not await self._still_queued(batch, repository):
                return
            await UserRepository(session).cancel(batch.id)
            values = {"state": BatchState.FAILED, "error": explain(exc), "ended_at": await repository.now()}
            await repository.update(batch.id, values)
            if batch.webhook_url is not None:
                await repository.announce(batch.id)


def is_fresh(
    profile: Known, *, version_id: str, bank: tuple[str, str], now: datetime, max_age_days: float | None
) -> bool:
    """Say whether a profile need not be extracted again."""
    if profile.version_id != version_id or profile.bank != bank:
        return False
    return max_age_days is None or now - profile.created_at <= timedelta(days=max_age_days)
