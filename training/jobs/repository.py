"""The SQL of training jobs. Nothing here commits; `None` means "there is none"."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, delete, func, or_, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import distinct_on, insert
from sqlalchemy.ext.asyncio import AsyncSession

from training.jobs.dispatch import Quota, Waiting
from training.jobs.models import ACTIVE_SQL, CostRow, EventRow, JobRow, QuotaRow, StageRow, TrainedRow, WritingRow
from training.jobs.states import ACTIVE, HELD, Phase, Stage, State, Wish

_WAITING_EACH = 64  # of each tenant: more than a pass ever hands over
_RECENT = 20


@dataclass(frozen=True, kw_only=True)
class Hold:
    """A job that a worker holds, as far as its end depends on others."""

    id: str
    tenant: str
    user_id: str
    run: int
    wish: Wish


class JobRepository:
    """Reads and writes jobs, their stages, events, writings and costs through one session."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def try_lock(self, name: str) -> bool:
        """Say whether this transaction is the only one, of all workers, that does `name` now."""
        key = func.hashtextextended(f"lorry training\n{name}", 0)
        return bool((await self._session.execute(select(func.pg_try_advisory_xact_lock(key)))).scalar_one())

    async def now(self) -> datetime:
        """Return the database's time."""
        moment: datetime = (await self._session.execute(select(func.clock_timestamp()))).scalar_one()
        return moment

    async def insert(self, values: Mapping[str, Any]) -> JobRow | None:
        """Store a new job, or return None when the user's adapter has an active one."""
        statement = (
            insert(JobRow)
            .values(**values)
            .on_conflict_do_nothing(index_elements=["tenant", "user_id", "adapter"], index_where=_active())
            .returning(JobRow)
        )
        return (await self._session.execute(statement)).scalars().one_or_none()

    async def get(self, job_id: str, *, tenant: str | None = None, lock: bool = False) -> JobRow | None:
        """Return one job; with `tenant`, only when it is that tenant's."""
        query = select(JobRow).where(JobRow.id == job_id).execution_options(populate_existing=True)
        if tenant is not None:
            query = query.where(JobRow.tenant == tenant)
        return (await self._session.execute(query.with_for_update() if lock else query)).scalars().one_or_none()

    async def active(self, *, tenant: str, user: str, adapter: str) -> JobRow | None:
        """Return the job that has not ended, of which there is at most one."""
        query = select(JobRow).where(
            JobRow.tenant == tenant, JobRow.user_id == user, JobRow.adapter == adapter, JobRow.state.in_(ACTIVE)
        )
        return (await self._session.execute(query)).scalars().one_or_none()

    async def page(
        self,
        *,
        tenant: str | None,
        user: str | None = None,
        states: Iterable[State] = (),
        campaign_id: str | None = None,
        before: str | None = None,
        limit: int = 100,
    ) -> list[JobRow]:
        """Return jobs, the latest first; `before` is the last id of the page before."""
        query = select(JobRow).order_by(JobRow.submitted_at.desc(), JobRow.id.desc()).limit(limit)
        conditions = {JobRow.tenant: tenant, JobRow.user_id: user, JobRow.campaign_id: campaign_id}
        for column, value in conditions.items():
            if value is not None:
                query = query.where(column == value)
        if wanted := list(states):
            query = query.where(JobRow.state.in_(wanted))
        if before is not None:
            last = select(JobRow.submitted_at, JobRow.id).where(JobRow.id == before).subquery()
            query = query.where(
                tuple_(JobRow.submitted_at, JobRow.id) < select(last.c.submitted_at, last.c.id).scalar_subquery()
            )
        return list((await self._session.execute(query)).scalars())

    async def waiting(self) -> list[Waiting]:
        """Return the queued jobs whose time has come, at most the first few of each tenant and phase."""
        turn = func.row_number().over(
            partition_by=(JobRow.tenant, JobRow.phase),
            order_by=(JobRow.priority.desc(), JobRow.submitted_at, JobRow.id),
        )
        due = or_(JobRow.not_before.is_(None), JobRow.not_before <= func.now())
        jobs = select(JobRow.id, turn.label("turn")).where(JobRow.state == State.QUEUED, due).subquery()
        query = select(JobRow).join(jobs, jobs.c.id == JobRow.id).where(jobs.c.turn <= _WAITING_EACH)
        return [
            Waiting(
                id=row.id,
                tenant=row.tenant,
                phase=Phase(row.phase),
                priority=row.priority,
                submitted_at=row.submitted_at,
                started=row.started_at is not None,
            )
            for row in (await self._session.execute(query)).scalars()
        ]

    async def held(self) -> tuple[dict[Phase, int], dict[str, int]]:
        """Return how many jobs workers hold, by phase and by tenant."""
        query = (
            select(JobRow.phase, JobRow.tenant, func.count())
            .where(JobRow.state.in_(HELD))
            .group_by(JobRow.phase, JobRow.tenant)
        )
        phases: dict[Phase, int] = {}
        tenants: dict[str, int] = {}
        for phase, tenant, count in await self._session.execute(query):
            phases[Phase(phase)] = phases.get(Phase(phase), 0) + count
            tenants[tenant] = tenants.get(tenant, 0) + count
        return phases, tenants

    async def hand_over(self, job_id: str) -> JobRow | None:
        """Mark a queued job as given to the workers; None when it is queued no more."""
        values = {"state": State.STARTING, "run": JobRow.run + 1, "worker_id": None, "not_before": None}
        return await self._change(JobRow.id == job_id, JobRow.state == State.QUEUED, values=values)

    async def take(self, job_id: str, *, run: int, worker_id: str) -> JobRow | None:
        """Let a worker hold the job; None when this run of it is over."""
        values = {
            "state": State.RUNNING,
            "worker_id": worker_id,
            "started_at": func.coalesce(JobRow.started_at, func.now()),
        }
        return await self._change(JobRow.id == job_id, JobRow.run == run, JobRow.state.in_(HELD), values=values)

    async def settle(self, job_id: str, *, run: int, values: Mapping[str, Any]) -> JobRow | None:
        """End a run of a job; None when it has ended already."""
        return await self._change(JobRow.id == job_id, JobRow.run == run, JobRow.state.in_(HELD), values=values)

    async def update(self, job_id: str, values: Mapping[str, Any]) -> None:
        """Change columns of a job."""
        await self._change(JobRow.id == job_id, values=values)

    async def holds(self, worker_id: str) -> list[Hold]:
        """Return what this worker holds."""
        query = select(JobRow.id, JobRow.tenant, JobRow.user_id, JobRow.run, JobRow.wish).where(
            JobRow.worker_id == worker_id, JobRow.state == State.RUNNING
        )
        return [
            Hold(id=row.id, tenant=row.tenant, user_id=row.user_id, run=row.run, wish=Wish(row.wish))
            for row in await self._session.execute(query)
        ]

    async def orphan(self, worker_id: str) -> list[JobRow]:
        """Take its jobs from a worker that died, count the crash, and return them."""
        statement = (
            update(JobRow)
            .where(JobRow.worker_id == worker_id, JobRow.state == State.RUNNING)
            .values(worker_id=None, crashes=JobRow.crashes + 1, updated_at=func.now())
            .returning(JobRow)
            .execution_options(populate_existing=True)
        )
        return list((await self._session.execute(statement)).scalars())

    async def release(self, worker_id: str) -> None:
        """Take its jobs from a worker that stops in order: that is no crash."""
        statement = update(JobRow).where(JobRow.worker_id == worker_id, JobRow.state == State.RUNNING)
        await self._session.execute(statement.values(worker_id=None))

    async def _change(self, *conditions: Any, values: Mapping[str, Any]) -> JobRow | None:
        statement = (
            update(JobRow)
            .where(*conditions)
            .values(**values, updated_at=func.now())
            .returning(JobRow)
            .execution_options(populate_existing=True)
        )
        return (await self._session.execute(statement)).scalars().one_or_none()

    # ----- stages, events, writings

    async def stages(self, job_id: str) -> dict[Stage, dict[str, Any]]:
        """Return the results of the stages that the job has finished."""
        query = select(StageRow.stage, StageRow.result).where(StageRow.job_id == job_id)
        return {Stage(stage): result for stage, result in await self._session.execute(query)}

    async def add_stage(self, job_id: str, stage: Stage, *, result: Mapping[str, Any], seconds: float) -> bool:
        """Keep a stage's result; False when it was kept before, and then nothing changes."""
        statement = (
            insert(StageRow)
            .values(job_id=job_id, stage=stage, result=dict(result), seconds=seconds)
            .on_conflict_do_nothing()
            .returning(StageRow.stage)
        )
        return (await self._session.execute(statement)).first() is not None

    async def forget_stages(self, job_id: str) -> None:
        """Have the job begin anew when it is retried."""
        await self._session.execute(delete(StageRow).where(StageRow.job_id == job_id))

    async def usual_seconds(self) -> dict[Stage, float]:
        """Return each stage's mean duration over the latest jobs."""
        turn = func.row_number().over(partition_by=StageRow.stage, order_by=StageRow.finished_at.desc())
        recent = select(StageRow.stage, StageRow.seconds, turn.label("turn")).subquery()
        query = (
            select(recent.c.stage, func.avg(recent.c.seconds)).where(recent.c.turn <= _RECENT).group_by(recent.c.stage)
        )
        return {Stage(stage): float(seconds) for stage, seconds in await self._session.execute(query)}

    async def add_event(self, job_id: str, kind: str, detail: Mapping[str, Any] | None = None) -> None:
        """Write down what happened to the job."""
        await self._session.execute(insert(EventRow).values(job_id=job_id, kind=kind, detail=dict(detail or {})))

    async def events(self, job_id: str, *, after: int = 0, limit: int = 500) -> list[EventRow]:
        """Return the job's events with larger ids, in order."""
        query = (
            select(EventRow).where(EventRow.job_id == job_id, EventRow.id > after).order_by(EventRow.id).limit(limit)
        )
        return list((await self._session.execute(query)).scalars())

    async def writing(self, job_id: str) -> WritingRow | None:
        """Return what the job's question writer was asked and answered."""
        return await self._session.get(WritingRow, job_id, populate_existing=True)

    async def keep_writing(self, job_id: str, **values: Any) -> None:
        """Keep a writer's state or what it has written."""
        statement = insert(WritingRow).values(job_id=job_id, **values)
        await self._session.execute(statement.on_conflict_do_update(index_elements=["job_id"], set_=values))

    async def claimed_batches(self, *, except_job: str) -> set[str]:
        """Return the ids of all batches that other jobs' writers know to be theirs."""
        ids = func.jsonb_array_elements_text(WritingRow.state["batches"])
        query = select(ids).where(WritingRow.job_id != except_job, WritingRow.state.is_not(None))
        return set((await self._session.execute(query)).scalars())

    async def forget_writing(self, job_id: str) -> None:
        """Remove what the job's question writer has written."""
        await self._session.execute(delete(WritingRow).where(WritingRow.job_id == job_id))

    async def remaining(self, *, failed_before: datetime) -> list[JobRow]:
        """Return jobs that have ended, those that failed only so long ago left out, whose writing is still kept."""
        over = or_(
            and_(JobRow.ended_at.is_not(None), JobRow.state != State.FAILED),
            and_(JobRow.state == State.FAILED, JobRow.ended_at < failed_before),
        )
        query = select(JobRow).join(WritingRow, WritingRow.job_id == JobRow.id).where(over).limit(100)
        return list((await self._session.execute(query)).scalars())

    async def keeping(self) -> list[JobRow]:
        """Return jobs that no worker holds and that may have content kept for when they go on."""
        query = select(JobRow).where(
            JobRow.state.in_((State.QUEUED, State.PAUSED, State.FAILED)), JobRow.started_at.is_not(None)
        )
        return list((await self._session.execute(query.limit(1000))).scalars())

    async def known(self, job_ids: Sequence[str]) -> dict[str, tuple[State, datetime | None]]:
        """Return state and end of those of the jobs that exist."""
        query = select(JobRow.id, JobRow.state, JobRow.ended_at).where(JobRow.id.in_(job_ids))
        return {row.id: (State(row.state), row.ended_at) for row in await self._session.execute(query)}

    # ----- quotas, costs, what was trained

    async def quotas(self) -> dict[str, Quota]:
        """Return every tenant's quota; a tenant without one is not there."""
        rows = (await self._session.execute(select(QuotaRow))).scalars()
        return {row.tenant: _quota(row) for row in rows}

    async def quota(self, tenant: str) -> Quota:
        """Return the tenant's quota; without one, everything is unlimited."""
        row = await self._session.get(QuotaRow, tenant, populate_existing=True)
        return _quota(row) if row else Quota()

    async def put_quota(self, tenant: str, quota: Quota) -> None:
        """Set the tenant's quota."""
        values = {
            "max_running": quota.max_running,
            "max_daily": quota.max_daily,
            "max_monthly_dollars": quota.max_monthly_dollars,
        }
        statement = insert(QuotaRow).values(tenant=tenant, **values)
        await self._session.execute(statement.on_conflict_do_update(index_elements=["tenant"], set_=values))

    async def submitted_since(self, tenant: str, age: timedelta) -> int:
        """Return how many of the tenant's jobs were submitted in that time."""
        query = select(func.count()).where(JobRow.tenant == tenant, JobRow.submitted_at > func.now() - age)
        return int((await self._session.execute(query)).scalar_one())

    async def keep_cost(self, values: Mapping[str, Any]) -> None:
        """Write down a cost; the same job's and kind's again replaces it, so that nothing counts twice."""
        statement = insert(CostRow).values(**values)
        changed = {key: value for key, value in values.items() if key not in {"job_id", "kind", "is_estimate"}}
        keys = ["job_id", "kind", "is_estimate"]
        await self._session.execute(statement.on_conflict_do_update(index_elements=keys, set_=changed))

    async def costs(
        self,
        *,
        tenant: str | None = None,
        user: str | None = None,
        job_id: str | None = None,
        since: timedelta | None = None,
        by: str = "tenant",
    ) -> list[dict[str, Any]]:
        """Return sums by ``tenant``, ``user_id``, ``job_id`` or ``kind``; estimates and what was spent apart."""
        key = {"tenant": CostRow.tenant, "user_id": CostRow.user_id, "job_id": CostRow.job_id, "kind": CostRow.kind}[by]
        amounts = ("input_tokens", "output_tokens", "trained_tokens", "dollars", "device_seconds")
        sums = [func.sum(getattr(CostRow, name)).label(name) for name in amounts]
        query = select(key.label("of"), CostRow.is_estimate, *sums).group_by(key, CostRow.is_estimate).order_by(key)
        for column, value in ((CostRow.tenant, tenant), (CostRow.user_id, user), (CostRow.job_id, job_id)):
            if value is not None:
                query = query.where(column == value)
        if since is not None:
            query = query.where(CostRow.at > func.now() - since)
        rows = (await self._session.execute(query)).mappings()
        return [{name: float(v) if name in amounts else v for name, v in row.items()} for row in rows]

    async def mean_device_seconds(self, kind: str) -> float | None:
        """Return the mean of what a stage of this kind took of a device lately."""
        recent = (
            select(CostRow.device_seconds)
            .where(CostRow.kind == kind, CostRow.is_estimate.is_(False))
            .order_by(CostRow.at.desc())
            .limit(_RECENT)
            .subquery()
        )
        found = (await self._session.execute(select(func.avg(recent.c.device_seconds)))).scalar_one()
        return None if found is None else float(found)

    async def keep_trained(self, values: Mapping[str, Any]) -> None:
        """Remember what the user's adapter was trained on last."""
        statement = insert(TrainedRow).values(**values)
        keys = ["tenant", "user_id", "adapter"]
        changed = {key: value for key, value in values.items() if key not in keys}
        await self._session.execute(statement.on_conflict_do_update(index_elements=keys, set_=changed))

    async def trained(self, *, tenant: str, adapter: str) -> dict[str, TrainedRow]:
        """Return what each user of the tenant was trained on last."""
        query = select(TrainedRow).where(TrainedRow.tenant == tenant, TrainedRow.adapter == adapter)
        return {row.user_id: row for row in (await self._session.execute(query)).scalars()}

    async def forget_trained(self, *, tenant: str, user: str) -> None:
        """Forget what the user's adapters were trained on."""
        await self._session.execute(delete(TrainedRow).where(TrainedRow.tenant == tenant, TrainedRow.user_id == user))

    async def latest(self, *, tenant: str) -> dict[str, JobRow]:
        """Return each user's latest job."""
        query = (
            select(JobRow)
            .ext(distinct_on(JobRow.user_id))
            .where(JobRow.tenant == tenant)
            .order_by(JobRow.user_id, JobRow.submitted_at.desc())
        )
        return {row.user_id: row for row in (await self._session.execute(query)).scalars()}

    async def forget_jobs(self, *, ended_before: datetime, limit: int = 1000) -> int:
        """Remove jobs that ended so long ago, with their events; return how many. What they cost is kept."""
        old = (
            select(JobRow.id)
            .where(JobRow.ended_at < ended_before, JobRow.id.not_in(select(WritingRow.job_id)))
            .limit(limit)
        )
        gone = await self._session.execute(delete(JobRow).where(JobRow.id.in_(old)).returning(JobRow.id))
        return len(gone.all())

    async def count_states(self) -> dict[str, int]:
        """Return how many jobs there are in each state."""
        query = select(JobRow.state, func.count()).group_by(JobRow.state)
        return {row[0]: row[1] for row in await self._session.execute(query)}

    async def oldest_waiting_seconds(self) -> float:
        """Return how long the queued job that may begin now waits that waits longest; 0 without any."""
        waits = func.extract("epoch", func.now() - func.greatest(JobRow.submitted_at, JobRow.not_before))
        due = or_(JobRow.not_before.is_(None), JobRow.not_before <= func.now())
        found = (
            await self._session.execute(select(func.max(waits)).where(JobRow.state == State.QUEUED, due))
        ).scalar_one()
        return float(found or 0.0)


def _active() -> Any:
    return text(ACTIVE_SQL)


def _quota(row: QuotaRow) -> Quota:
    return Quota(max_running=row.max_running, max_daily=row.max_daily, max_monthly_dollars=row.max_monthly_dollars)
