"""Batches of all tenants: submitted, looked at, paused, resumed, canceled. Workers do the rest."""

from __future__ import annotations

import builtins
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from kit.database import Database
from kit.names import check_name
from serving.jobs import states
from serving.jobs.batch import Batch, Submission
from serving.jobs.errors import BatchNotFound, TooManyBatches, TooManyUsers, WebhooksNotSetUp
from serving.jobs.limits import TenantLimits
from serving.jobs.models import BatchRow
from serving.jobs.progress import WINDOW, Progress, estimate, measure_rate
from serving.jobs.repository import BatchRepository
from serving.jobs.settings import BatchSettings
from serving.jobs.states import BatchState, UserState
from serving.jobs.users.repository import UserRepository
from serving.jobs.webhooks.addresses import check_url


class Batches:
    """Every batch of one database."""

    def __init__(self, database: Database, settings: BatchSettings) -> None:
        self._database = database
        self._settings = settings
        self._limits = TenantLimits(database, settings)

    async def submit(self, submission: Submission) -> Batch:
        """Queue a batch.

        Raises:
            TooManyUsers: when it names more than the tenant may have in one.
            TooManyBatches: when the tenant has as many unfinished ones as it may.
            WebhookRefused, WebhooksNotSetUp: when nobody could be told at that address.
        """
        tenant, selection = check_name(submission.tenant, field="tenant"), submission.selection
        if submission.webhook_url is not None:
            if self._settings.extraction_webhook_key is None:
                raise WebhooksNotSetUp(field="webhook")
            check_url(submission.webhook_url, private=self._settings.extraction_webhook_private)
        async with self._database.transaction() as session:
            repository, users = BatchRepository(session), UserRepository(session)
            await repository.lock_tenant(tenant)
            limits = await self._limits.get_in(session, tenant)
            require_users(len(selection.users or ()), most=limits.max_users)
            if (unfinished := await repository.count_unfinished(tenant)) >= limits.max_batches:
                raise TooManyBatches(
                    f"the tenant has {unfinished} unfinished batches and may have {limits.max_batches}: "
                    "wait for one, or cancel one"
                )
            row = await repository.insert(
                {
                    "id": f"b{uuid.uuid4().hex}",
                    "tenant": tenant,
                    "selection": selection.to_json(),
                    "webhook_url": submission.webhook_url,
                    "state": BatchState.QUEUED,
                    "users": len(selection.users or ()),
                }
            )
            await users.add(row.id, ({"user_id": user} for user in selection.users or ()))
            return (await _described(session, [row]))[0]

    async def get(self, batch_id: str, *, tenant: str) -> Batch:
        """Return one batch.

        Raises:
            BatchNotFound: there is none of that id, or it is another tenant's.
        """
        async with self._database.transaction() as session:
            row = await require(BatchRepository(session), batch_id, tenant=tenant)
            return (await _described(session, [row]))[0]

    async def list(
        self, *, tenant: str, states: Iterable[BatchState] = (), before: str | None = None, limit: int = 100
    ) -> builtins.list[Batch]:
        """Return a tenant's batches, the latest first; `before` is the id of the last batch of the page before."""
        async with self._database.transaction() as session:
            rows = await BatchRepository(session).page(tenant=tenant, states=states, before=before, limit=limit)
            return await _described(session, rows)

    async def pause(self, batch_id: str, *, tenant: str) -> Batch:
        """Have no more users taken in hand; those who are come to their end.

        Raises:
            BatchNotFound, IllegalBatchTransition: see `get` and `states.pause`.
        """
        return await self._move(batch_id, lambda row: states.pause(BatchState(row.state)), tenant=tenant)

    async def resume(self, batch_id: str, *, tenant: str) -> Batch:
        """Have a paused batch go on.

        Raises:
            BatchNotFound, IllegalBatchTransition: see `get` and `states.resume`.
        """

        def move(row: BatchRow) -> BatchState:
            return states.resume(BatchState(row.state), planned=row.planned_at is not None)

        return await self._move(batch_id, move, tenant=tenant)

    async def cancel(self, batch_id: str, *, tenant: str) -> Batch:
        """End a batch now; what was delivered stays, and who is in hand is let go.

        Raises:
            BatchNotFound, IllegalBatchTransition: see `get` and `states.cancel`.
        """
        return await self._move(batch_id, lambda row: states.cancel(BatchState(row.state)), tenant=tenant)

    async def _move(self, batch_id: str, move: Callable[[BatchRow], BatchState], *, tenant: str) -> Batch:
        async with self._database.transaction() as session:
            repository = BatchRepository(session)
            row = await require(repository, batch_id, tenant=tenant, lock=True)
            after = move(row)
            if after is not BatchState(row.state):
                await repository.update(batch_id, await _changes(session, row, after))
                row = await require(repository, batch_id, tenant=tenant)
            return (await _described(session, [row]))[0]


async def _changes(session: AsyncSession, row: BatchRow, after: BatchState) -> dict[str, Any]:
    """Return what a transition changes of the batch's row, after what it changes elsewhere."""
    repository = BatchRepository(session)
    now = await repository.now()
    match after:
        case BatchState.CANCELED:
            await UserRepository(session).cancel(row.id)
            if row.webhook_url is not None:
                await repository.announce(row.id)
            return {"state": after, "ended_at": now}
        case BatchState.RUNNING:
            return {"state": after, "going_since": now}
        case _:
            return {"state": after}


async def require(repository: BatchRepository, batch_id: str, *, tenant: str | None, lock: bool = False) -> BatchRow:
    """Return a batch's row.

    Raises:
        BatchNotFound: there is none of that id, or it is another tenant's.
    """
    row = await repository.get(batch_id, tenant=tenant, lock=lock)
    if row is None:
        raise BatchNotFound(f"there is no batch extraction {batch_id[:64]!r}", field="batch_id")
    return row


def require_users(count: int, *, most: int) -> None:
    """Return when a batch may have so many users.

    Raises:
        TooManyUsers: when it may not.
    """
    if count > most:
        raise TooManyUsers(f"the batch has {count} users and may have {most}: divide it", field="users")


async def _described(session: AsyncSession, rows: Sequence[BatchRow]) -> builtins.list[Batch]:
    repository, users = BatchRepository(session), UserRepository(session)
    ids = [row.id for row in rows]
    counts, failures = await users.counts(ids), await users.failures([row.id for row in rows if row.failed])
    deliveries = await repository.deliveries(ids)
    return [
        Batch.of(
            row,
            progress=await _progress(session, row, counts[row.id]),
            failures=failures.get(row.id, {}),
            delivery=deliveries.get(row.id),
        )
        for row in rows
    ]


async def _progress(session: AsyncSession, row: BatchRow, counts: dict[UserState, int]) -> Progress:
    waiting, held = counts.get(UserState.WAITING, 0), counts.get(UserState.HELD, 0)
    rate = None
    if row.state == BatchState.RUNNING and row.going_since is not None:
        ends = await UserRepository(session).latest_ends(row.id, limit=WINDOW)
        rate = measure_rate(ends, since=row.going_since, now=await BatchRepository(session).now())
    return Progress(
        users=row.users,
        waiting=waiting,
        in_hand=held,
        done=row.done,
        failed=row.failed,
        skipped=row.skipped,
        canceled=counts.get(UserState.CANCELED, 0),
        users_per_minute=None if rate is None else 60 * rate,
        eta_seconds=estimate(waiting + held, rate) if row.state == BatchState.RUNNING else None,
    )
