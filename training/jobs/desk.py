"""Takes jobs up, has their stages done, and writes down how they ended.

A database that is away is waited for, whatever is being done.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from kit.database import Database
from kit.errors import DatabaseUnavailable, LorryError
from training.errors import TrainingPaused
from training.jobs.assignment import Assignment, Parked, StopReason
from training.jobs.endings import GOES_ON, Ending, changes, ending_of, event_kind, explain
from training.jobs.errors import JobStopped, TranscriptsErased
from training.jobs.models import JobRow
from training.jobs.patience import patiently
from training.jobs.record.repository import RecordRepository
from training.jobs.repository import JobRepository
from training.jobs.settings import WorkerSettings
from training.jobs.states import STAGES, Phase, Stage, State, Wish
from training.jobs.words import run_ended, stage_done
from training.jobs.workshop.workshop import Workshop

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Desk:
    """Every job that one worker holds."""

    def __init__(
        self, settings: WorkerSettings, *, database: Database, workshop: Workshop, tell: Callable[[str], None]
    ) -> None:
        """Begin with no job; `tell` is given a line for each stage that is done and each run that has ended."""
        self._settings = settings
        self._tell = tell
        self._database = database
        self._workshop = workshop
        self.assignments: dict[str, Assignment] = {}
        self._closed = False

    def close(self) -> None:
        """Park everything, also what is taken from now on: the worker stops."""
        self._closed = True
        self.park()

    async def take(self, job_id: str, run: int) -> Assignment | None:
        """Take a run of a job up, for the first time or after its worker died; None when it is over."""

        async def attempt() -> Assignment | None:
            async with self._database.transaction() as session:
                repository, record = JobRepository(session), RecordRepository(session)
                row = await repository.take(job_id, run=run, worker_id=self._settings.worker_id)
                if row is None:
                    return None
                job = Assignment.of(row, usual_seconds=await record.usual_seconds())
                job.know((await record.stages(job_id)).get(Stage.SNAPSHOT, {}))
                await record.add_event(
                    job_id, "taken", {"worker_id": self._settings.worker_id, "phase": row.phase, "crashes": row.crashes}
                )
                return job

        job = await self._patiently(attempt)
        if job is not None:
            if self._closed:
                job.stop(StopReason.PARKED)
            self.assignments[job_id] = job
        return job

    def let_go(self, job: Assignment) -> None:
        """Hold the job no longer, unless it was taken up again meanwhile."""
        if self.assignments.get(job.job_id) is job:
            del self.assignments[job.job_id]

    def park(self) -> None:
        """Let go of everything at the next step, to be taken up again later."""
        for each in list(self.assignments.values()):
            each.stop(StopReason.PARKED)

    async def perform(self, job: Assignment, stage: Stage) -> Ending:
        """Do one stage, unless it was done before, and say how the job goes on.

        Raises:
            Parked: the worker stops, or the job is not its any more.
        """
        try:
            return await self._patiently(lambda: self._perform(job, stage), job=job)
        except TranscriptsErased as exc:
            return Ending(kind="erased", error=explain(exc, stage))
        except (JobStopped, TrainingPaused):
            return self._stopped(job)
        except (LorryError, OSError, MemoryError) as exc:
            return self._sort(exc, stage)
        except Exception as exc:  # a mistake of ours must end one job, not the worker
            _log.exception("a training stage failed unexpectedly: %s", stage)
            return self._sort(exc, stage)

    async def _perform(self, job: Assignment, stage: Stage) -> Ending:
        async with self._database.transaction() as session:
            repository, record = JobRepository(session), RecordRepository(session)
            done = await record.stages(job.job_id)
            if stage in done:
                return GOES_ON
            row = await repository.get(job.job_id, lock=True)  # a job's events are written one after the other
            wish = Wish(row.wish) if row is not None else Wish.NONE
            if wish is not Wish.NONE:
                job.stop(StopReason.CANCELED if wish is Wish.CANCEL else StopReason.PAUSED)
            job.check()
            await record.add_event(job.job_id, "stage began", {"stage": stage})
        job.begin(stage)
        if job.transcript_ids:
            await self._workshop.require_transcripts(job)
        result = await self._workshop.perform(job, stage, done)
        async with self._database.transaction() as session:
            repository, record = JobRepository(session), RecordRepository(session)
            if await record.add_stage(job.job_id, stage, result=result, seconds=job.seconds):
                await repository.update(job.job_id, {"crashes": 0})
                await record.add_event(job.job_id, "stage finished", {"stage": stage, "seconds": round(job.seconds, 3)})
        self._tell(f"job {job.job_id}: {stage_done(stage, seconds=job.seconds)}")
        if stage is Stage.SNAPSHOT:
            job.know(result)
        return GOES_ON

    def _stopped(self, job: Assignment) -> Ending:
        match job.stopped:
            case StopReason.PARKED:
                raise Parked
            case StopReason.PAUSED:
                return Ending(kind="paused")
            case StopReason.CANCELED:
                return Ending(kind="canceled")
            case StopReason.ERASED:
                return Ending(kind="erased", error=explain(TranscriptsErased(), job.stage))
            case None:  # a pause was withdrawn when the work had just stopped for it
                return Ending(kind="resumed")

    def _sort(self, exc: BaseException, stage: Stage) -> Ending:
        _log.warning("a training stage failed: %s in %s", type(exc).__name__, stage)
        return ending_of(exc, stage)

    async def settle(self, job: Assignment, ending: Ending) -> None:
        """Write down how the run ended; done again, it changes nothing."""
        row = await self._patiently(lambda: self._settle(job, ending))
        if row is not None and (said := run_ended(State(row.state), code=(row.error or {}).get("code"))):
            self._tell(f"job {job.job_id}: {said}")
        if row is not None and row.state in {State.SUCCEEDED, State.REJECTED, State.CANCELED}:
            await self._patiently(lambda: self._workshop.tidy(row))

    async def _settle(self, job: Assignment, ending: Ending) -> JobRow | None:
        async with self._database.transaction() as session:
            repository, record = JobRepository(session), RecordRepository(session)
            row = await repository.get(job.job_id, lock=True)
            if row is None:
                return None
            review = bool(row.request.get("review"))
            values = changes(
                ending,
                wish=Wish(row.wish),
                attempts=row.attempts,
                done=await record.stages(job.job_id),
                now=await repository.now(),
                settings=self._settings,
                review=review,
            )
            settled = await repository.settle(job.job_id, run=job.run, values=values)
            if settled is not None:
                kind = event_kind(ending, State(settled.state), review=review)
                await record.add_event(job.job_id, kind, _explained(ending, values))
            return settled

    async def _patiently(self, work: Callable[[], Awaitable[T]], *, job: Assignment | None = None) -> T:
        """Do something again until the database answers; a job that is parked meanwhile is let go of."""

        def let_go() -> bool:
            return self._closed or (job is not None and job.stopped is StopReason.PARKED)

        try:
            return await patiently(work, unless=let_go)
        except DatabaseUnavailable:
            raise Parked from None


def _explained(ending: Ending, values: dict[str, Any]) -> dict[str, Any]:
    """Return what the event of a run's end says beside its kind: an error, or what kept the version from being live."""
    if ending.error:
        return {"error": values.get("error")}
    failed = (values.get("outcome") or {}).get("failed")
    return {"why": "; ".join(failed)} if failed else {}


def stages_of(phase: str) -> tuple[Stage, ...]:
    """Return the stages of a phase, in order."""
    return STAGES[Phase(phase)]
