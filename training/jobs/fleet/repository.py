"""The SQL of workers. Nothing here commits."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Interval, cast, delete, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from training.jobs.models import JobRow, WorkerRow
from training.jobs.states import HELD, Phase


class WorkerRepository:
    """Reads and writes `training_worker` through one session; all times are the database's."""

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
        fresh = {**values, "started_at": func.now(), "heard_at": func.now(), "left_at": None}
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
        gone = await self._session.execute(statement.values(left_at=func.now()).returning(WorkerRow.id))
        return gone.first() is not None

    async def dead(self) -> list[str]:
        """Return the ids of workers that have left or lapsed."""
        return list((await self._session.execute(select(WorkerRow.id).where(~alive()))).scalars())

    async def slots(self) -> dict[Phase, int]:
        """Return how many jobs the living workers can hold at once."""
        query = select(
            func.coalesce(func.sum(WorkerRow.prepare_slots), 0), func.coalesce(func.sum(WorkerRow.train_slots), 0)
        ).where(alive())
        prepare, train = (await self._session.execute(query)).one()
        return {Phase.PREPARE: int(prepare), Phase.TRAIN: int(train)}

    async def all(self) -> list[dict[str, Any]]:
        """Return every worker with its state and how many jobs it holds."""
        jobs = (
            select(JobRow.worker_id, func.count().label("jobs"))
            .where(JobRow.state.in_(HELD))
            .group_by(JobRow.worker_id)
            .subquery()
        )
        query = (
            select(WorkerRow, alive().label("alive"), func.coalesce(jobs.c.jobs, 0).label("jobs"))
            .outerjoin(jobs, jobs.c.worker_id == WorkerRow.id)
            .order_by(WorkerRow.id)
        )
        return [
            {
                "worker_id": row.id,
                "host": row.host,
                "state": "alive" if alive else "left" if row.left_at else "lapsed",
                "prepare_slots": row.prepare_slots,
                "train_slots": row.train_slots,
                "jobs": jobs,
                "started_at": row.started_at,
                "heard_at": row.heard_at,
            }
            for row, alive, jobs in await self._session.execute(query)
        ]

    async def forget(self, *, silent_days: float) -> None:
        """Remove workers that were silent for so long and hold nothing."""
        holding = select(JobRow.worker_id).where(JobRow.state.in_(HELD), JobRow.worker_id.is_not(None))
        age = cast(literal(f"{silent_days} days"), Interval)
        statement = delete(WorkerRow).where(WorkerRow.heard_at < func.now() - age, WorkerRow.id.not_in(holding))
        await self._session.execute(statement)


def alive() -> Any:
    """SQL of "this worker was heard within its lease and has not left"."""
    lease = func.make_interval(0, 0, 0, 0, 0, 0, WorkerRow.lease_seconds)
    return WorkerRow.left_at.is_(None) & (WorkerRow.heard_at + lease >= func.clock_timestamp())
