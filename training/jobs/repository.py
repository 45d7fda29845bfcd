"""The SQL of training jobs. Nothing here commits; `None` means "there is none"."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, delete, exists, func, or_, select, text, true, tuple_, union, update
from sqlalchemy.dialects.postgresql import distinct_on, insert
from sqlalchemy.ext.asyncio import AsyncSession

from training.jobs.assignment import Assignment, StopReason
from training.jobs.dispatch import Waiting
from training.jobs.models import ACTIVE_SQL, FinishedRow, JobRow, StageRow, WritingRow
from training.jobs.states import ACTIVE, HELD, Phase, Stage, State, Trigger, Wish
from transcripts.models import TranscriptRow

_WAITING_EACH = 64  # of each tenant: more than a pass ever hands over


@dataclass(frozen=True, kw_only=True)
class Hold:
    """A job that a worker holds, as far as its end depends on others."""

    id: str
    tenant: str
    user_id: str
    run: int
    wish: Wish


@dataclass(frozen=True, kw_only=True)
class News:
    """What there is to do: jobs to hand over, jobs that no worker has taken yet, and how many one worker holds."""

    to_hand_over: bool
    to_take: bool
    ours: int


class JobRepository:
    """Reads and writes `training_job` through one session."""

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
        """Store a new job, or return None when the user has an active one."""
        statement = (
            insert(JobRow)
            .values(**values)
            .on_conflict_do_nothing(index_elements=["tenant", "user_id"], index_where=_active())
            .returning(JobRow)
        )
        return (await self._session.execute(statement)).scalars().one_or_none()

    async def get(self, job_id: str, *, tenant: str | None = None, lock: bool = False) -> JobRow | None:
        """Return one job; with `tenant`, only when it is that tenant's."""
        query = select(JobRow).where(JobRow.id == job_id).execution_options(populate_existing=True)
        if tenant is not None:
            query = query.where(JobRow.tenant == tenant)
        return (await self._session.execute(query.with_for_update() if lock else query)).scalars().one_or_none()

    async def active(self, *, tenant: str, user: str) -> JobRow | None:
        """Return the user's job that has not ended, of which there is at most one."""
        query = select(JobRow).where(JobRow.tenant == tenant, JobRow.user_id == user, JobRow.state.in_(ACTIVE))
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

    async def tell(self, job_id: str, *, run: int, progress: Mapping[str, Any]) -> None:
        """Write down how far a run is, unless it has ended meanwhile."""
        mine = (JobRow.id == job_id, JobRow.run == run, JobRow.state == State.RUNNING)
        await self._change(*mine, values={"progress": progress})

    async def holds(self, worker_id: str) -> list[Hold]:
        """Return what this worker holds."""
        query = select(JobRow.id, JobRow.tenant, JobRow.user_id, JobRow.run, JobRow.wish).where(
            JobRow.worker_id == worker_id, JobRow.state == State.RUNNING
        )
        return [
            Hold(id=row.id, tenant=row.tenant, user_id=row.user_id, run=row.run, wish=Wish(row.wish))
            for row in await self._session.execute(query)
        ]

    async def require_held(self, job: Assignment) -> None:
        """Have the job stop here when its worker does not hold it any more; else nobody takes it before the commit.

        Raises:
            JobStopped: it does not.
        """
        mine = (JobRow.run == job.run, JobRow.worker_id == job.worker_id, JobRow.state == State.RUNNING)
        query = select(JobRow.id).where(JobRow.id == job.job_id, *mine).with_for_update()
        if (await self._session.execute(query)).first() is None:
            job.stop(StopReason.PARKED)
            job.check()

    async def holders(self) -> set[str]:
        """Return the ids of workers that hold something."""
        query = select(JobRow.worker_id).where(JobRow.state.in_(HELD), JobRow.worker_id.is_not(None)).distinct()
        return {worker_id for worker_id in (await self._session.execute(query)).scalars() if worker_id is not None}

    async def news(self, worker_id: str) -> News:
        """Return, in one statement, what there is to do now."""
        due = or_(JobRow.not_before.is_(None), JobRow.not_before <= func.now())
        waiting = select(JobRow.id).where(JobRow.state == State.QUEUED, due)
        handed_over = select(JobRow.id).where(
            or_(JobRow.state == State.STARTING, and_(JobRow.state == State.RUNNING, JobRow.worker_id.is_(None)))
        )
        ours = select(func.count()).where(JobRow.state == State.RUNNING, JobRow.worker_id == worker_id)
        query = select(waiting.exists(), handed_over.exists(), ours.scalar_subquery())
        to_hand_over, to_take, held = (await self._session.execute(query)).one()
        return News(to_hand_over=to_hand_over, to_take=to_take, ours=held)

    async def handed_over(self) -> list[JobRow]:
        """Return every job whose run is in the workers' queues or hands."""
        return list((await self._session.execute(select(JobRow).where(JobRow.state.in_(HELD)))).scalars())

    async def put_back(self, job_id: str, *, run: int, pause: timedelta) -> JobRow | None:
        """Let a job wait again whose run ended without saying how, and count that as a crash; None when it has not."""
        values = {
            "state": State.QUEUED,
            "worker_id": None,
            "crashes": JobRow.crashes + 1,
            "not_before": func.now() + pause,
        }
        return await self.settle(job_id, run=run, values=values)

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

    async def remaining(self, *, failed_before: datetime) -> list[JobRow]:
        """Return jobs that have ended, those that failed only so long ago left out, of which content is still kept.

        At most a hundred, by lot: those whose service does not answer must not keep the others from their turn.
        """
        over = or_(
            and_(JobRow.ended_at.is_not(None), JobRow.state != State.FAILED),
            and_(JobRow.state == State.FAILED, JobRow.ended_at < failed_before),
        )
        kept = union(select(WritingRow.job_id), select(FinishedRow.job_id))
        query = select(JobRow).where(over, JobRow.id.in_(kept)).order_by(func.random()).limit(100)
        return list((await self._session.execute(query)).scalars())

    async def half_published(self) -> list[JobRow]:
        """Return canceled jobs that may have a version in the registry; at most a hundred, by lot."""
        query = select(JobRow).where(JobRow.state == State.CANCELED, JobRow.publishing.is_not(None))
        return list((await self._session.execute(query.order_by(func.random()).limit(100))).scalars())

    async def bereft(self, *, failed_before: datetime, limit: int = 1000) -> list[JobRow]:
        """Return jobs that no worker holds and that are about transcripts which their user has no longer.

        Only those that may have content kept for when they go on: failed ones keep theirs for some days.
        """
        about = (
            func.jsonb_array_elements_text(StageRow.result["transcript_ids"])
            .table_valued("id")
            .render_derived(name="about")
        )
        there = exists().where(
            TranscriptRow.tenant == JobRow.tenant,
            TranscriptRow.user_id == JobRow.user_id,
            TranscriptRow.id == about.c.id,
        )
        gone = (
            select(StageRow.job_id)
            .join(about, true())
            .where(StageRow.job_id == JobRow.id, StageRow.stage == Stage.SNAPSHOT, ~there.correlate(JobRow, about))
            .correlate(JobRow)
            .exists()
        )
        keeps = or_(
            JobRow.state.in_((State.QUEUED, State.PAUSED)),
            and_(JobRow.state == State.FAILED, JobRow.ended_at >= failed_before),
        )
        query = select(JobRow).where(keeps, JobRow.started_at.is_not(None), gone).limit(limit)
        return list((await self._session.execute(query)).scalars())

    async def known(self, job_ids: Sequence[str]) -> dict[str, tuple[State, datetime | None]]:
        """Return state and end of those of the jobs that exist."""
        query = select(JobRow.id, JobRow.state, JobRow.ended_at).where(JobRow.id.in_(job_ids))
        return {row.id: (State(row.state), row.ended_at) for row in await self._session.execute(query)}

    async def submitted_since(self, tenant: str, age: timedelta) -> int:
        """Return how many of the tenant's jobs were submitted in that time; campaigns have a rate of their own."""
        query = select(func.count()).where(
            JobRow.tenant == tenant, JobRow.submitted_at > func.now() - age, JobRow.trigger != Trigger.CAMPAIGN
        )
        return int((await self._session.execute(query)).scalar_one())

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
