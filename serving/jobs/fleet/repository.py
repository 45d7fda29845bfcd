"""The SQL of extraction workers. Nothing here commits; all times are the database's."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Interval, cast, delete, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from serving.jobs.models import UserRow, WorkerRow
from serving.jobs.states import UserState


class WorkerRepository:
    """Reads and writes `extraction_worker` through one session."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def get(self, worker_id: str) -> WorkerRow | None:
        """Return a worker, or None when no worker ever had this id."""
        return await self._session.get(WorkerRow, worker_id, populate_existing=True)

    async def is_alive(self, worker_id: str) -> bool:
        """Say whether the worker was heard within its lease and has not left."""
        query = select(WorkerRow.id).where(WorkerRow.id == worker_id, alive())
        return (await self._session.execute(query)).first() is not None

    async def register(self, values: dict[str, Any]) -> None:
        """Write down a worker that begins, in the place of an earlier one of its id."""
        fresh = {**values, "started_at": func.now(), "heard_at": func.clock_timestamp(), "left_at": None}
        changed = {key: value for key, value in fresh.items() if key != "id"}
        statement = insert(WorkerRow).values(**fresh)
        await self._session.execute(statement.on_conflict_do_update(index_elements=["id"], set_=changed))

    async def hear(self, worker_id: str, *, boot: str) -> bool:
        """Extend a worker's lease; False when another process has its id now."""
        statement = (
            update(WorkerRow)
            .where(WorkerRow.id == worker_id, WorkerRow.boot == boot)
            .values(heard_at=func.clock_timestamp(), left_at=None)
            .returning(WorkerRow.id)
        )
        return (await self._session.execute(statement)).first() is not None

    async def leave(self, worker_id: str, *, boot: str) -> bool:
        """Write down that a worker has stopped in order; False when another process has its id now."""
        statement = update(WorkerRow).where(WorkerRow.id == worker_id, WorkerRow.boot == boot)
        gone = await self._session.execute(statement.values(left_at=func.clock_timestamp()).returning(WorkerRow.id))
        return gone.first() is not None

    async def dead(self) -> list[str]:
        """Return the ids of workers that have left or lapsed and still hold users."""
        holding = select(UserRow.worker_id).where(UserRow.state == UserState.HELD).distinct()
        query = select(WorkerRow.id).where(~alive(), WorkerRow.id.in_(holding))
        return list((await self._session.execute(query)).scalars())

    async def all(self) -> list[dict[str, Any]]:
        """Return every worker with its state and how many users it has in hand."""
        held = (
            select(UserRow.worker_id, func.count().label("users"))
            .where(UserRow.state == UserState.HELD)
            .group_by(UserRow.worker_id)
            .subquery()
        )
        query = (
            select(WorkerRow, alive().label("alive"), func.coalesce(held.c.users, 0).label("users"))
            .outerjoin(held, held.c.worker_id == WorkerRow.id)
            .order_by(WorkerRow.id)
        )
        return [
            {
                "worker_id": row.id,
                "host": row.host,
                "state": "alive" if is_alive else "left" if row.left_at else "lapsed",
                "slots": row.slots,
                "users": users,
                "started_at": row.started_at,
                "heard_at": row.heard_at,
            }
            for row, is_alive, users in await self._session.execute(query)
        ]

    async def forget(self, *, silent_days: float) -> None:
        """Remove workers that were silent for so long and hold nobody."""
        holding = select(UserRow.worker_id).where(UserRow.state == UserState.HELD)
        age = cast(literal(f"{silent_days} days"), Interval)
        await self._session.execute(
            delete(WorkerRow).where(WorkerRow.heard_at < func.now() - age, WorkerRow.id.not_in(holding))
        )


def alive() -> Any:
    """Return the condition that a worker was heard within its lease and has not left."""
    lease = func.make_interval(0, 0, 0, 0, 0, 0, WorkerRow.lease_seconds)
    return WorkerRow.left_at.is_(None) & (WorkerRow.heard_at + lease >= func.clock_timestamp())
