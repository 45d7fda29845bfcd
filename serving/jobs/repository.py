"""The SQL of batches. Nothing here commits; `None` means "there is none"."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, delete, func, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from serving.jobs.fleet.repository import alive
from serving.jobs.models import BatchRow, DeliveryRow, UserRow, WorkerRow
from serving.jobs.states import OPEN, UNFINISHED, BatchState, DeliveryState, UserState
from serving.jobs.turns import Runnable


@dataclass(frozen=True, kw_only=True)
class News:
    """What there is to do: batches to plan, users to take in hand, who is in hand already, messages that are due."""

    to_plan: bool
    to_take: bool
    held: bool
    to_tell: bool


class BatchRepository:
    """Reads and writes `extraction_batch` through one session."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def now(self) -> datetime:
        """Return the database's time."""
        moment: datetime = (await self._session.execute(select(func.clock_timestamp()))).scalar_one()
        return moment

    async def lock_tenant(self, tenant: str) -> None:
        """Let nobody else submit for the tenant until the transaction ends."""
        key = func.hashtextextended(f"lorry extraction\n{tenant}", 0)
        await self._session.execute(select(func.pg_advisory_xact_lock(key)))

    async def insert(self, values: Mapping[str, Any]) -> BatchRow:
        """Store a new batch."""
        return (await self._session.execute(insert(BatchRow).values(**values).returning(BatchRow))).scalar_one()

    async def get(self, batch_id: str, *, tenant: str | None = None, lock: bool = False) -> BatchRow | None:
        """Return one batch; with `tenant`, only when it is that tenant's."""
        query = select(BatchRow).where(BatchRow.id == batch_id).execution_options(populate_existing=True)
        if tenant is not None:
            query = query.where(BatchRow.tenant == tenant)
        return (await self._session.execute(query.with_for_update() if lock else query)).scalars().one_or_none()

    async def page(
        self, *, tenant: str, states: Iterable[BatchState] = (), before: str | None = None, limit: int = 100
    ) -> list[BatchRow]:
        """Return a tenant's batches, the latest first; `before` is the last id of the page before."""
        query = select(BatchRow).where(BatchRow.tenant == tenant)
        query = query.order_by(BatchRow.submitted_at.desc(), BatchRow.id.desc()).limit(limit)
        if wanted := list(states):
            query = query.where(BatchRow.state.in_(wanted))
        if before is not None:
            last = select(BatchRow.submitted_at, BatchRow.id).where(BatchRow.id == before).subquery()
            query = query.where(
                tuple_(BatchRow.submitted_at, BatchRow.id) < select(last.c.submitted_at, last.c.id).scalar_subquery()
            )
        return list((await self._session.execute(query)).scalars())

    async def update(self, batch_id: str, values: Mapping[str, Any]) -> None:
        """Change columns of one batch."""
        await self._session.execute(update(BatchRow).where(BatchRow.id == batch_id).values(**values))

    async def count_unfinished(self, tenant: str) -> int:
        """Return how many batches of the tenant have not ended."""
        query = select(func.count()).where(BatchRow.tenant == tenant, BatchRow.state.in_(UNFINISHED))
        return int((await self._session.execute(query)).scalar_one())

    async def news(self, worker_id: str) -> News:
        """Return, in one statement, what there is for this worker to do now."""
        held = select(UserRow.user_id).where(UserRow.worker_id == worker_id, UserRow.state == UserState.HELD)
        message = select(DeliveryRow.batch_id).where(
            DeliveryRow.state == DeliveryState.PENDING, DeliveryRow.not_before <= func.clock_timestamp()
        )
        query = select(
            _unplanned(worker_id).exists(),
            select(BatchRow.id).where(BatchRow.state == BatchState.RUNNING, _waits().exists()).exists(),
            held.exists(),
            message.exists(),
        )
        plan, take, hold, tell = (await self._session.execute(query)).one()
        return News(to_plan=plan, to_take=take, held=hold, to_tell=tell)

    async def claim_planning(self, worker_id: str) -> BatchRow | None:
        """Return the oldest batch that waits to be planned, as this worker's to plan; None when there is none."""
        oldest = (
            _unplanned(worker_id)
            .order_by(BatchRow.submitted_at, BatchRow.id)
            .limit(1)
            .with_for_update(skip_locked=True)
            .scalar_subquery()
        )
        statement = update(BatchRow).where(BatchRow.id == oldest).values(planner_id=worker_id).returning(BatchRow)
        return (await self._session.execute(statement)).scalars().one_or_none()

    async def runnable(self) -> list[Runnable]:
        """Return the running batches that have users whose turn may come now."""
        held = select(func.count()).where(UserRow.batch_id == BatchRow.id, UserRow.state == UserState.HELD)
        query = select(
            BatchRow.id, BatchRow.tenant, BatchRow.submitted_at, held.correlate(BatchRow).scalar_subquery()
        ).where(BatchRow.state == BatchState.RUNNING, _waits().exists())
        return [
            Runnable(id=id_, tenant=tenant, submitted_at=submitted, held=count)
            for id_, tenant, submitted, count in await self._session.execute(query)
        ]

    async def deliver(self, batch_id: str, state: UserState) -> None:
        """Count one more delivered user of a batch that the caller has locked, and end the batch after the last.

        Called after the user's row was changed.
        """
        counters = {UserState.DONE: "done", UserState.FAILED: "failed", UserState.SKIPPED: "skipped"}
        column = getattr(BatchRow, counters[state])
        values = {"delivered": BatchRow.delivered + 1, column.key: column + 1, "delivered_at": func.clock_timestamp()}
        await self.update(batch_id, values)
        await self.end_when_over(batch_id)

    async def end_when_over(self, batch_id: str) -> bool:
        """End a planned batch that nobody of is open any more; say whether that was so. The caller has locked it."""
        open_ = select(UserRow.user_id).where(UserRow.batch_id == batch_id, UserRow.state.in_(OPEN)).exists()
        statement = (
            update(BatchRow)
            .where(BatchRow.id == batch_id, BatchRow.planned_at.is_not(None), BatchRow.state.in_(UNFINISHED), ~open_)
            .values(state=BatchState.DONE, ended_at=func.clock_timestamp())
            .returning(BatchRow.id, BatchRow.webhook_url)
        )
        ended = (await self._session.execute(statement)).one_or_none()
        if ended is not None and ended.webhook_url is not None:
            await self.announce(batch_id)
        return ended is not None

    async def announce(self, batch_id: str) -> None:
        """Have the batch's webhook told that it has ended."""
        await self._session.execute(insert(DeliveryRow).values(batch_id=batch_id).on_conflict_do_nothing())

    async def deliveries(self, batch_ids: Iterable[str]) -> dict[str, DeliveryRow]:
        """Return what became of the webhooks' messages of these batches."""
        query = select(DeliveryRow).where(DeliveryRow.batch_id.in_(list(batch_ids)))
        return {row.batch_id: row for row in (await self._session.execute(query)).scalars()}

    async def count_states(self) -> dict[BatchState, int]:
        """Return how many unfinished batches are in each state."""
        query = select(BatchRow.state, func.count()).where(BatchRow.state.in_(UNFINISHED)).group_by(BatchRow.state)
        return {BatchState(state): count for state, count in await self._session.execute(query)}

    async def stuck_seconds(self) -> float:
        """Return how long nothing came to an end in the running batch of which that is longest true; 0 without any."""
        since = func.greatest(BatchRow.going_since, BatchRow.delivered_at)
        longest = func.max(func.extract("epoch", func.clock_timestamp() - since))
        query = select(func.coalesce(longest, 0)).where(BatchRow.state == BatchState.RUNNING)
        return float((await self._session.execute(query)).scalar_one())

    async def ended_before(self, moment: datetime, *, limit: int) -> list[BatchRow]:
        """Return batches that ended before a moment, the oldest first."""
        query = select(BatchRow).where(BatchRow.ended_at < moment).order_by(BatchRow.ended_at).limit(limit)
        return list((await self._session.execute(query)).scalars())

    async def forget(self, batch_id: str) -> None:
        """Remove a batch with its users and its webhook's message."""
        await self._session.execute(delete(BatchRow).where(BatchRow.id == batch_id))


def _unplanned(worker_id: str) -> Select[str]:
    """Return the ids of batches that wait to be planned and that nobody else who is alive plans."""
    living = select(WorkerRow.id).where(alive())
    free = or_(BatchRow.planner_id.is_(None), BatchRow.planner_id == worker_id, BatchRow.planner_id.not_in(living))
    return select(BatchRow.id).where(BatchRow.state == BatchState.QUEUED, free)


def _waits() -> Select[str]:
    """Return the users, of the batch that is looked at, whose turn may come now."""
    due = or_(UserRow.not_before.is_(None), UserRow.not_before <= func.now())
    waiting = select(UserRow.user_id).where(UserRow.batch_id == BatchRow.id, UserRow.state == UserState.WAITING, due)
    return waiting.correlate(BatchRow)
