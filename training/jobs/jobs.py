"""What people and programs ask of trainings: submit, look, cancel, pause, resume, retry; quotas, rules and costs.

Only the database is touched here: workers see what was asked and act on it.
"""

from __future__ import annotations

import builtins
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from kit.database import Database
from kit.names import check_name
from training.config import TrainingRequest, resolve
from training.errors import ConfigInvalid
from training.jobs import states
from training.jobs.dispatch import Quota
from training.jobs.errors import JobNotFound, JobRequestInvalid, NothingToTrainOn, QuotaExhausted, TrainingActive
from training.jobs.fleet.repository import WorkerRepository
from training.jobs.models import EventRow, JobRow
from training.jobs.repository import JobRepository
from training.jobs.staleness import Due, Knowledge, Rules, due
from training.jobs.states import Phase, Standing, State, Trigger, Wish
from training.jobs.triggers.repository import RulesRepository
from transcripts.store import TranscriptStore

DEFAULT_ADAPTER = "profile"
_DAY = timedelta(days=1)
_MONTH = timedelta(days=30)
_MAX_PRIORITY = 1000


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What somebody wants trained; `settings` are those of ``lorry train --set``, by key."""

    tenant: str
    user: str
    base: str
    adapter: str = DEFAULT_ADAPTER
    settings: Mapping[str, Any] = field(default_factory=dict)
    priority: int = 0
    trigger: Trigger = Trigger.MANUAL
    why: str = ""
    campaign_id: str | None = None

    def check(self) -> Submission:
        """Return this submission.

        Raises:
            InvalidName: tenant, user or adapter is no name.
            ConfigInvalid: naming a setting that does not exist or cannot have this value.
            JobRequestInvalid: the priority is out of range, or no base is named.
        """
        for name in ("tenant", "user", "adapter"):
            check_name(getattr(self, name), field="user_id" if name == "user" else name)
        if not -_MAX_PRIORITY <= self.priority <= _MAX_PRIORITY:
            raise JobRequestInvalid(f"priority must be from -{_MAX_PRIORITY} to {_MAX_PRIORITY}", field="priority")
        if not self.base.strip():
            raise JobRequestInvalid("base must name a base model", field="base")
        if "base" in self.settings:
            raise ConfigInvalid("base is a field of its own, not a setting", field="base")
        resolve(TrainingRequest(), arguments=self.settings)
        return self


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training as people see it; times are UTC, `progress` is `training.jobs.progress.Progress` as JSON."""

    id: str
    tenant: str
    user_id: str
    adapter: str
    base: str
    settings: dict[str, Any]
    trigger: Trigger
    why: str
    campaign_id: str | None
    priority: int
    state: State
    phase: Phase
    wish: Wish
    attempts: int
    crashes: int
    worker_id: str | None
    progress: dict[str, Any] | None
    error: dict[str, Any] | None
    outcome: dict[str, Any] | None
    submitted_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    not_before: datetime | None
    updated_at: datetime

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to it unless somebody retries it."""
        return self.state in states.ENDED


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened to a job; ids grow within a job."""

    id: int
    at: datetime
    kind: str
    detail: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Staleness:
    """One user of a tenant: what is stored, what was trained, and whether and why a training is due."""

    user: str
    words: int
    trained_words: int | None
    trained_at: datetime | None
    base: str | None
    due: Due | None
    active_job: str | None
    last_state: State | None


class Jobs:
    """Every training job of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def submit(self, submission: Submission) -> Job:
        """Queue a training.

        Raises:
            TrainingActive: the user's adapter has a job that has not ended; `details` name it.
            NothingToTrainOn: the user has no transcripts.
            QuotaExhausted: the tenant's day or month is used up.
            InvalidName, ConfigInvalid, JobRequestInvalid: see `Submission.check`.
        """
        submission.check()
        async with self._database.transaction() as session:
            if not (await TranscriptStore(session).summary(submission.tenant, submission.user)).transcripts:
                raise NothingToTrainOn(f"{submission.user} has no transcripts to train on", field="user_id")
            await self._check_quota(session, submission.tenant)
            return await self.submit_in(session, submission)

    async def submit_in(self, session: AsyncSession, submission: Submission) -> Job:
        """Queue a training inside the caller's transaction, quotas aside.

        Raises:
            TrainingActive: the user's adapter has a job that has not ended.
        """
        repository = JobRepository(session)
        values = {
            "id": f"j{uuid.uuid4().hex}",
            "tenant": submission.tenant,
            "user_id": submission.user,
            "adapter": submission.adapter,
            "base": submission.base,
            "request": {"settings": dict(submission.settings), "why": submission.why},
            "trigger": submission.trigger,
            "campaign_id": submission.campaign_id,
            "priority": submission.priority,
            "state": State.QUEUED,
            "phase": Phase.PREPARE,
        }
        row = await repository.insert(values)
        if row is None:
            owner = {"tenant": submission.tenant, "user": submission.user, "adapter": submission.adapter}
            active = await repository.active(**owner)
            job_id = active.id if active else "another"
            raise TrainingActive(
                f"{submission.user} is being trained already, by job {job_id}; one training per user at a time",
                field="user_id",
                job_id=job_id,
            )
        await repository.add_event(row.id, "submitted", {"trigger": submission.trigger, "why": submission.why})
        return _job(row)

    async def get(self, job_id: str, *, tenant: str | None = None) -> Job:
        """Return one job.

        Raises:
            JobNotFound: there is none of that id, or it is another tenant's.
        """
        async with self._database.reading() as session:
            return _job(await _require(JobRepository(session), job_id, tenant=tenant))

    async def list(
        self,
        *,
        tenant: str | None = None,
        user: str | None = None,
        states: Iterable[State] = (),
        campaign_id: str | None = None,
        before: str | None = None,
        limit: int = 100,
    ) -> list[Job]:
        """Return jobs, the latest first; `before` is the id of the last job of the page before."""
        async with self._database.reading() as session:
            rows = await JobRepository(session).page(
                tenant=tenant, user=user, states=states, campaign_id=campaign_id, before=before, limit=limit
            )
        return [_job(row) for row in rows]

    async def events(
        self, job_id: str, *, after: int = 0, limit: int = 500, tenant: str | None = None
    ) -> Sequence[Event]:
        """Return the job's events with larger ids, in order.

        Raises:
            JobNotFound: see `get`.
        """
        async with self._database.reading() as session:
            repository = JobRepository(session)
            await _require(repository, job_id, tenant=tenant)
            return [_event(row) for row in await repository.events(job_id, after=after, limit=limit)]

    async def cancel(self, job_id: str, *, tenant: str | None = None) -> Job:
        """End a job; what it has made is removed. One that a worker holds ends at that worker's next step.

        Raises:
            JobNotFound, IllegalJobTransition: see `get` and `states.cancel`.
        """
        return await self._move(job_id, states.cancel, tenant=tenant)

    async def pause(self, job_id: str, *, tenant: str | None = None) -> Job:
        """Have a job wait until it is resumed; a training goes on later at the step where it stopped.

        Raises:
            JobNotFound, IllegalJobTransition: see `get` and `states.pause`.
        """
        return await self._move(job_id, states.pause, tenant=tenant)

    async def resume(self, job_id: str, *, tenant: str | None = None) -> Job:
        """Have a paused job go on.

        Raises:
            JobNotFound, IllegalJobTransition: see `get` and `states.resume`.
        """
        return await self._move(job_id, states.resume, tenant=tenant)

    async def retry(self, job_id: str, *, tenant: str | None = None) -> Job:
        """Try an ended job again. A failed one goes on after the last stage that it finished, others begin anew.

        Raises:
            TrainingActive: the user's adapter has another job by now.
            JobNotFound, IllegalJobTransition: see `get` and `states.retry`.
        """
        async with self._database.transaction() as session:
            repository = JobRepository(session)
            row = await _require(repository, job_id, tenant=tenant, lock=True)
            before = State(row.state)
            moved = states.retry(_standing(row))
            other = await repository.active(tenant=row.tenant, user=row.user_id, adapter=row.adapter)
            if other is not None:
                raise TrainingActive(f"{row.user_id} is being trained by job {other.id}", job_id=other.id)
            if before is not State.FAILED:
                await repository.forget_stages(job_id)
            await repository.update(
                job_id,
                {
                    "state": moved.state,
                    "phase": states.next_phase(frozenset(await repository.stages(job_id))),
                    "wish": Wish.NONE,
                    "attempts": 0,
                    "crashes": 0,
                    "not_before": None,
                    "ended_at": None,
                    "error": None,
                    "outcome": None,
                    "progress": None,
                },
            )
            await repository.add_event(job_id, "retried", {"from": before})
            return _job(await _require(repository, job_id, tenant=tenant))

    async def _move(self, job_id: str, move: Callable[[Standing], Standing], *, tenant: str | None) -> Job:
        async with self._database.transaction() as session:
            repository = JobRepository(session)
            row = await _require(repository, job_id, tenant=tenant, lock=True)
            before = _standing(row)
            after = move(before)
            if after != before:
                ended = {"ended_at": datetime.now(UTC)} if after.state in states.ENDED else {}
                await repository.update(job_id, {"state": after.state, "wish": after.wish, **ended})
                kind = after.state.value if after.state is not before.state else f"asked to {after.wish.value}"
                await repository.add_event(job_id, "resumed" if kind in {"asked to none", "queued"} else kind)
            return _job(await _require(repository, job_id, tenant=tenant))

    # ----- quotas, rules, costs, who is stale

    async def _check_quota(self, session: AsyncSession, tenant: str) -> None:
        repository = JobRepository(session)
        quota = await repository.quota(tenant)
        if quota.max_daily is not None and await repository.submitted_since(tenant, _DAY) >= quota.max_daily:
            raise QuotaExhausted(f"{tenant} has submitted the {quota.max_daily} trainings of its day", field="tenant")
        if quota.max_monthly_dollars is not None:
            spent = await spent_dollars(session, tenant)
            if spent >= quota.max_monthly_dollars:
                raise QuotaExhausted(
                    f"{tenant} has spent {spent:.2f} of {quota.max_monthly_dollars:.2f} dollars in 30 days",
                    field="tenant",
                )

    async def quota(self, tenant: str) -> Quota:
        """Return what the tenant may use."""
        async with self._database.reading() as session:
            return await JobRepository(session).quota(check_name(tenant, field="tenant"))

    async def put_quota(self, tenant: str, quota: Quota) -> Quota:
        """Set what the tenant may use.

        Raises:
            JobRequestInvalid: a limit is negative.
        """
        check_name(tenant, field="tenant")
        for name, value in asdict(quota).items():
            if value is not None and not 0 <= value < 1 << 31:
                raise JobRequestInvalid(f"{name} must be a number of at least 0 (got {value})", field=name)
        async with self._database.transaction() as session:
            await JobRepository(session).put_quota(tenant, quota)
        return quota

    async def rules(self, tenant: str) -> Rules:
        """Return when the tenant's users are trained without anybody asking."""
        async with self._database.reading() as session:
            return await RulesRepository(session).get(check_name(tenant, field="tenant"))

    async def put_rules(self, tenant: str, rules: Rules) -> Rules:
        """Set when the tenant's users are trained without anybody asking.

        Raises:
            JobRequestInvalid: naming the rule that cannot be followed.
        """
        check_name(tenant, field="tenant")
        rules.check()
        async with self._database.transaction() as session:
            await RulesRepository(session).put(tenant, rules)
        return rules

    async def costs(
        self,
        *,
        tenant: str | None = None,
        user: str | None = None,
        job_id: str | None = None,
        by: str = "tenant",
        days: float = 30,
    ) -> builtins.list[dict[str, Any]]:
        """Return sums of tokens, dollars and device seconds; estimates and what was spent apart.

        `by` is ``tenant``, ``user_id``, ``job_id`` or ``kind`` (the stage that cost).
        """
        if by not in {"tenant", "user_id", "job_id", "kind"}:
            raise JobRequestInvalid("by must be tenant, user_id, job_id or kind", field="by")
        async with self._database.reading() as session:
            return await JobRepository(session).costs(
                tenant=tenant, user=user, job_id=job_id, since=timedelta(days=days), by=by
            )

    async def staleness(
        self, tenant: str, *, base: str | None = None, adapter: str = DEFAULT_ADAPTER, rules: Rules | None = None
    ) -> builtins.list[Staleness]:
        """Return every user of the tenant with whether and why a training is due; `base` is the one wanted now."""
        check_name(tenant, field="tenant")
        async with self._database.transaction() as session:
            return await who_is_stale(session, tenant, base=base, adapter=adapter, rules=rules)

    async def workers(self) -> builtins.list[dict[str, Any]]:
        """Return every worker: alive, lapsed (silent for longer than its lease) or left."""
        async with self._database.reading() as session:
            return await WorkerRepository(session).all()


async def who_is_stale(
    session: AsyncSession, tenant: str, *, base: str | None, adapter: str = DEFAULT_ADAPTER, rules: Rules | None = None
) -> list[Staleness]:
    """See `Jobs.staleness`."""
    repository = JobRepository(session)
    rules = rules or await RulesRepository(session).get(tenant)
    words = await TranscriptStore(session).own_words(tenant)
    trained, latest = await repository.trained(tenant=tenant, adapter=adapter), await repository.latest(tenant=tenant)
    now = await repository.now()
    found = []
    for user in sorted(words):
        row, job = trained.get(user), latest.get(user)
        known = Knowledge(
            words=words[user],
            trained_words=row.words if row else None,
            trained_at=row.trained_at if row else None,
            trained_base=row.base if row else None,
            wanted_base=base,
            submitted_at=job.submitted_at if job else None,
        )
        found.append(
            Staleness(
                user=user,
                words=known.words,
                trained_words=known.trained_words,
                trained_at=known.trained_at,
                base=known.trained_base,
                due=due(known, rules, now=now),
                active_job=job.id if job and job.ended_at is None else None,
                last_state=State(job.state) if job else None,
            )
        )
    return found


async def spent_dollars(session: AsyncSession, tenant: str) -> float:
    """Return what the tenant's question writers were paid in 30 days."""
    sums = await JobRepository(session).costs(tenant=tenant, since=_MONTH)
    return float(sum(row["dollars"] for row in sums if not row["is_estimate"]))


async def _require(repository: JobRepository, job_id: str, *, tenant: str | None = None, lock: bool = False) -> JobRow:
    row = await repository.get(job_id, tenant=tenant, lock=lock)
    if row is None:
        raise JobNotFound(f"there is no training job {job_id[:64]!r}", field="job_id")
    return row


def _standing(row: JobRow) -> Standing:
    return Standing(state=State(row.state), wish=Wish(row.wish))


def _job(row: JobRow) -> Job:
    return Job(
        id=row.id,
        tenant=row.tenant,
        user_id=row.user_id,
        adapter=row.adapter,
        base=row.base,
        settings=row.request.get("settings", {}),
        trigger=Trigger(row.trigger),
        why=row.request.get("why", ""),
        campaign_id=row.campaign_id,
        priority=row.priority,
        state=State(row.state),
        phase=Phase(row.phase),
        wish=Wish(row.wish),
        attempts=row.attempts,
        crashes=row.crashes,
        worker_id=row.worker_id,
        progress=row.progress,
        error=row.error,
        outcome=row.outcome,
        submitted_at=row.submitted_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        not_before=row.not_before,
        updated_at=row.updated_at,
    )


def _event(row: EventRow) -> Event:
    return Event(id=row.id, at=row.at, kind=row.kind, detail=row.detail)
