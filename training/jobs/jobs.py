"""What people and programs ask of trainings: submit, look, cancel, pause, resume, retry.

Only the database is touched here: workers see what was asked and act on it.
"""

from __future__ import annotations

import builtins
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database import Database
from training.jobs import states
from training.jobs.costs.repository import CostRepository
from training.jobs.errors import JobNotFound, NothingToTrainOn, TrainingActive
from training.jobs.finished.repository import FinishedRepository
from training.jobs.job import Event, Job, Submission
from training.jobs.models import JobRow
from training.jobs.quotas.quotas import require_quota
from training.jobs.record.repository import RecordRepository
from training.jobs.repository import JobRepository
from training.jobs.states import Phase, Stage, Standing, State, Wish
from training.jobs.writings.repository import WritingRepository
from transcripts.store import TranscriptStore


class Jobs:
    """Every training job of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def submit(self, submission: Submission) -> Job:
        """Queue a training.

        Raises:
            TrainingActive: the user has a job that has not ended; `details` name it.
            NothingToTrainOn: the user has no transcripts.
            QuotaExhausted: the tenant's day or month is used up.
            InvalidName, ConfigInvalid, JobRequestInvalid: see `Submission.check`.
        """
        (job,) = await self.submit_all([submission])
        return job

    async def submit_all(self, submissions: Sequence[Submission]) -> builtins.list[Job]:
        """Queue all of these trainings, or none.

        Raises:
            LorryError: see `submit`, about the first that cannot be queued.
        """
        for submission in submissions:
            submission.check()
        queued = []
        async with self._database.transaction() as session:
            for submission in submissions:
                if not (await TranscriptStore(session).summary(submission.tenant, submission.user)).transcripts:
                    raise NothingToTrainOn(
                        f"{submission.user} has no transcripts to train on; import some first", field="user_id"
                    )
                await require_quota(session, submission.tenant)
                queued.append(await self.submit_in(session, submission))
        return queued

    async def submit_in(self, session: AsyncSession, submission: Submission) -> Job:
        """Queue a training inside the caller's transaction, quotas aside.

        Raises:
            TrainingActive: the user has a job that has not ended.
        """
        repository = JobRepository(session)
        values = {
            "id": f"j{uuid.uuid4().hex}",
            "tenant": submission.tenant,
            "user_id": submission.user,
            "adapter": submission.adapter,
            "base": submission.base,
            "request": {
                "settings": dict(submission.settings),
                "why": submission.why,
                "review": submission.review,
            },
            "trigger": submission.trigger,
            "campaign_id": submission.campaign_id,
            "priority": submission.priority,
            "state": State.QUEUED,
            "phase": Phase.PREPARE,
        }
        row = await repository.insert(values)
        if row is None:
            active = await repository.active(tenant=submission.tenant, user=submission.user)
            job_id = active.id if active else "another"
            raise TrainingActive(
                f"{submission.user} is being trained already, by job {job_id}; one training per user at a time:"
                " wait for it, or cancel it first",
                field="user_id",
                job_id=job_id,
            )
        await RecordRepository(session).add_event(
            row.id, "submitted", {"trigger": submission.trigger, "why": submission.why}
        )
        return Job.of(row)

    async def get(self, job_id: str, *, tenant: str | None = None) -> Job:
        """Return one job.

        Raises:
            JobNotFound: there is none of that id, or it is another tenant's.
        """
        async with self._database.reading() as session:
            return Job.of(await _require(JobRepository(session), job_id, tenant=tenant))

    async def dataset(self, job_id: str, *, tenant: str | None = None) -> dict[str, Any] | None:
        """Return what is kept of the job's dataset: figures, and no word of anybody's; None until it was built.

        That is its `digest`, `counts` of examples, how often what was `redacted`, and its `quality`, as
        `training.quality.report.QualityReport.figures` returns it; a dataset of an earlier release has none.

        Raises:
            JobNotFound: see `get`.
        """
        async with self._database.reading() as session:
            await _require(JobRepository(session), job_id, tenant=tenant)
            return await RecordRepository(session).result(job_id, Stage.DATASET)

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
        return [Job.of(row) for row in rows]

    async def events(
        self, job_id: str, *, after: int = 0, limit: int = 500, tenant: str | None = None
    ) -> Sequence[Event]:
        """Return the job's events with larger ids, in order.

        Raises:
            JobNotFound: see `get`.
        """
        async with self._database.reading() as session:
            await _require(JobRepository(session), job_id, tenant=tenant)
            rows = await RecordRepository(session).events(job_id, after=after, limit=limit)
        return [Event.of(row) for row in rows]

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

        One that failed for its start is trained anew, with the version that is live then; its questions stay.

        Raises:
            TrainingActive: the user has another job by now.
            JobNotFound, IllegalJobTransition: see `get` and `states.retry`.
        """
        try:
            return await self._retry(job_id, tenant=tenant)
        except IntegrityError as exc:  # one active job a user: another began between our look and our change
            raise TrainingActive("the user has another job by now", field="user_id") from exc

    async def _retry(self, job_id: str, *, tenant: str | None) -> Job:
        async with self._database.transaction() as session:
            repository, record = JobRepository(session), RecordRepository(session)
            row = await _require(repository, job_id, tenant=tenant, lock=True)
            before = State(row.state)
            moved = states.retry(_standing(row))
            other = await repository.active(tenant=row.tenant, user=row.user_id)
            if other is not None:
                raise TrainingActive(f"{row.user_id} is being trained by job {other.id}", job_id=other.id)
            stages = await record.stages(job_id)
            if before is not State.FAILED or await self._has_lost_its_questions(session, job_id, stages):
                await record.forget_stages(job_id)
                await WritingRepository(session).give_up(job_id)
                await FinishedRepository(session).forget(job_id)
                await CostRepository(session).set_aside(job_id, run=row.run)
            elif Stage.WRITE not in stages:
                await record.forget_stages(job_id, Stage.ESTIMATE)  # what the month allowed then, it may not now
            if before is State.FAILED and (row.error or {}).get("field") == "start":
                await self._begin_with_another(session, row)
            await repository.update(
                job_id,
                {
                    "state": moved.state,
                    "phase": states.next_phase(frozenset(await record.stages(job_id))),
                    "wish": Wish.NONE,
                    "attempts": 0,
                    "crashes": 0,
                    "not_before": None,
                    "ended_at": None,
                    "error": None,
                    "outcome": None,
                    "publishing": None if before is State.REJECTED else row.publishing,  # its version stays
                    "progress": None,
                },
            )
            await record.add_event(job_id, "retried", {"from": before})
            return Job.of(await _require(repository, job_id, tenant=tenant))

    async def _begin_with_another(self, session: AsyncSession, row: JobRow) -> None:
        """Have a job's training begin with what is live when it is trained: what was decided on is gone."""
        record = RecordRepository(session)
        decided = (await record.stages(row.id)).get(Stage.SNAPSHOT)
        if decided is None:
            return
        await record.forget_stages(row.id, Stage.SNAPSHOT, Stage.TRAIN, Stage.EVALUATE)
        anew = {**decided, "start": None, "beginning": uuid.uuid4().hex}  # elsewhere than what was begun before
        await record.add_stage(row.id, Stage.SNAPSHOT, result=anew, seconds=0.0)
        await FinishedRepository(session).forget(row.id)
        await CostRepository(session).set_aside(row.id, run=row.run, kind="train")

    async def _has_lost_its_questions(
        self, session: AsyncSession, job_id: str, stages: Mapping[Stage, Mapping[str, Any]]
    ) -> bool:
        """Whether what was written for a job is kept no longer: a failed one's is, for some days."""
        if Stage.WRITE not in stages:
            return False
        return await WritingRepository(session).written(job_id) is None

    async def _move(self, job_id: str, move: Callable[[Standing], Standing], *, tenant: str | None) -> Job:
        async with self._database.transaction() as session:
            repository, record = JobRepository(session), RecordRepository(session)
            row = await _require(repository, job_id, tenant=tenant, lock=True)
            before = _standing(row)
            after = move(before)
            if after != before:
                ended = {"ended_at": datetime.now(UTC)} if after.state in states.ENDED else {}
                await repository.update(job_id, {"state": after.state, "wish": after.wish, **ended})
                kind = after.state.value if after.state is not before.state else f"asked to {after.wish.value}"
                await record.add_event(job_id, "resumed" if kind in {"asked to none", "queued"} else kind)
            return Job.of(await _require(repository, job_id, tenant=tenant))


async def _require(repository: JobRepository, job_id: str, *, tenant: str | None = None, lock: bool = False) -> JobRow:
    row = await repository.get(job_id, tenant=tenant, lock=lock)
    if row is None:
        raise JobNotFound(f"there is no training job {job_id[:64]!r}; `lorry jobs` lists them", field="job_id")
    return row


def _standing(row: JobRow) -> Standing:
    return Standing(state=State(row.state), wish=Wish(row.wish))
