"""The SQL of costs. Nothing here commits."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import and_, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from training.jobs.assignment import Assignment
from training.jobs.costs.bill import BILL, Bill
from training.jobs.models import CostRow, JobRow, StageRow
from training.jobs.states import ACTIVE, Stage
from training.writers.cost import Cost

MONTH = timedelta(days=30)
_RECENT = 20
_KEYS = ["job_id", "kind", "is_estimate", "earlier_run"]
_AMOUNTS = ("input_tokens", "output_tokens", "trained_tokens", "dollars", "device_seconds")


class CostRepository:
    """Reads and writes `training_cost` through one session."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def keep(self, values: Mapping[str, Any]) -> None:
        """Write down a cost; the same job's and kind's again replaces it, so that nothing counts twice.

        Whose it is stays as it was first written down: an erasure may have hidden that since.
        """
        statement = insert(CostRow).values(**values)
        changed = {key: value for key, value in values.items() if key in _AMOUNTS}
        await self._session.execute(statement.on_conflict_do_update(index_elements=_KEYS, set_=changed))

    async def set_aside(self, job_id: str, *, run: int, kind: str | None = None) -> None:
        """Have what the job has cost, or one kind of it, stand beside what it will cost when that is done once more."""
        spent = [CostRow.job_id == job_id, CostRow.is_estimate.is_(False), CostRow.earlier_run == 0]
        if kind is not None:
            spent.append(CostRow.kind == kind)
        gone = delete(CostRow).where(*spent).returning(CostRow)
        for row in (await self._session.execute(gone)).scalars().all():
            values = {column.key: getattr(row, column.key) for column in CostRow.__table__.columns}
            statement = insert(CostRow).values({**values, "earlier_run": run})
            together = {name: getattr(CostRow, name) + getattr(statement.excluded, name) for name in _AMOUNTS}
            await self._session.execute(statement.on_conflict_do_update(index_elements=_KEYS, set_=together))

    async def spent_on_writing(self, job_id: str) -> float:
        """Return what the job's question writer was paid for the writing that goes on; 0 before any."""
        query = select(CostRow.dollars).where(
            CostRow.job_id == job_id,
            CostRow.kind == "write",
            CostRow.is_estimate.is_(False),
            CostRow.earlier_run == 0,
        )
        return float((await self._session.execute(query)).scalar_one_or_none() or 0.0)

    async def promised_dollars(self, tenant: str, *, except_job: str) -> float:
        """Return what the writings that the tenant's other jobs have begun, or may begin any moment, will cost yet.

        So do those of commands, until they are over: one that is gone on with later has its batch at the service.
        """
        active = select(JobRow.id).where(JobRow.state.in_(ACTIVE))
        written = select(StageRow.job_id).where(StageRow.stage == Stage.WRITE)
        goes_on = or_(
            and_(CostRow.job_id.in_(active), CostRow.job_id.not_in(written)),
            and_(CostRow.job_id.startswith(BILL), CostRow.at > func.now() - MONTH),
        )
        spent = aliased(CostRow)
        rest = func.greatest(CostRow.dollars - func.coalesce(spent.dollars, 0.0), 0.0)
        theirs = and_(
            spent.job_id == CostRow.job_id,
            spent.kind == CostRow.kind,
            spent.is_estimate.is_(False),
            spent.earlier_run == 0,
        )
        query = (
            select(func.coalesce(func.sum(rest), 0.0))
            .select_from(CostRow)
            .outerjoin(spent, theirs)
            .where(
                CostRow.tenant == tenant,
                CostRow.kind == "write",
                CostRow.is_estimate,
                CostRow.earlier_run == 0,
                CostRow.job_id != except_job,
                goes_on,
            )
        )
        return float((await self._session.execute(query)).scalar_one())

    async def close(self, job_id: str) -> None:
        """Have an estimate promise nothing more: what it was about is over."""
        mine = (CostRow.job_id == job_id, CostRow.is_estimate)
        closed = select(func.max(CostRow.earlier_run) + 1).where(*mine).scalar_subquery()
        await self._session.execute(
            update(CostRow)
            .where(*mine, CostRow.earlier_run == 0)
            .values(earlier_run=closed)
            .execution_options(synchronize_session=False)
        )

    async def withdraw(self, job_id: str) -> None:
        """Remove an estimate of what was not begun, or was broken off."""
        await self._session.execute(
            delete(CostRow).where(CostRow.job_id == job_id, CostRow.is_estimate, CostRow.earlier_run == 0)
        )

    async def sums(
        self,
        *,
        tenant: str | None = None,
        user: str | None = None,
        job_id: str | None = None,
        since: timedelta | None = None,
        by: str = "tenant",
    ) -> list[dict[str, Any]]:
        """Return sums by ``tenant``, ``user_id``, ``job_id`` or ``kind``; estimates and what was spent apart."""
        keys = {"tenant": CostRow.tenant, "user_id": CostRow.user_id, "job_id": CostRow.job_id, "kind": CostRow.kind}
        key = keys[by]
        sums = [func.sum(getattr(CostRow, name)).label(name) for name in _AMOUNTS]
        query = select(key.label("of"), CostRow.is_estimate, *sums).group_by(key, CostRow.is_estimate).order_by(key)
        for column, value in ((CostRow.tenant, tenant), (CostRow.user_id, user), (CostRow.job_id, job_id)):
            if value is not None:
                query = query.where(column == value)
        if since is not None:
            query = query.where(CostRow.at > func.now() - since)
        rows = (await self._session.execute(query)).mappings()
        return [{name: float(v) if name in _AMOUNTS else v for name, v in row.items()} for row in rows]

    async def spent_dollars(self, tenant: str) -> float:
        """Return what the tenant's question writers were paid in 30 days."""
        sums = await self.sums(tenant=tenant, since=MONTH)
        return float(sum(row["dollars"] for row in sums if not row["is_estimate"]))

    async def usual_device_seconds(self, base: str, *, steps: int | None) -> dict[str, float]:
        """Return what jobs of this base lately took of a device, by kind: so many steps, or as many as theirs had.

        A kind that none of them has come to is not there.
        """
        seconds = func.coalesce(StageRow.result["seconds"].as_float(), StageRow.seconds)  # all attempts'
        latest = func.row_number().over(partition_by=StageRow.stage, order_by=StageRow.finished_at.desc())
        recent = (
            select(
                StageRow.stage,
                seconds.label("seconds"),
                StageRow.result["steps"].as_float().label("steps"),
                latest.label("turn"),
            )
            .join(JobRow, JobRow.id == StageRow.job_id)
            .where(JobRow.base == base, StageRow.stage.in_((Stage.TRAIN, Stage.EVALUATE)))
            .subquery()
        )
        means = select(recent.c.stage, func.avg(recent.c.seconds), func.avg(recent.c.steps))
        rows = await self._session.execute(means.where(recent.c.turn <= _RECENT).group_by(recent.c.stage))
        return {stage: took * (steps / theirs if steps and theirs else 1.0) for stage, took, theirs in rows}


def cost_row(job: Assignment | Bill, kind: str, *, is_estimate: bool, **amounts: Any) -> dict[str, Any]:
    """Return what one stage of a job cost, or will, as it is stored; amounts that are not given are 0."""
    owner = {"tenant": job.tenant, "user_id": job.user}
    return {
        "job_id": job.job_id,
        "kind": kind,
        "is_estimate": is_estimate,
        **owner,
        **dict.fromkeys(_AMOUNTS, 0),
        **amounts,
    }


def writing_cost(job: Assignment | Bill, cost: Cost, *, is_estimate: bool) -> dict[str, Any]:
    """Return what a question writer cost, or will, as it is stored."""
    return cost_row(
        job,
        "write",
        is_estimate=is_estimate,
        input_tokens=cost.usage.prompt_tokens,
        output_tokens=cost.usage.output_tokens,
        dollars=cost.dollars or 0.0,
    )
