"""A job's answers, beside its state in PostgreSQL: whichever worker goes on with the job has what was paid for."""

from __future__ import annotations

from kit.database import Database
from training.jobs.assignment import Assignment
from training.jobs.patience import patiently
from training.jobs.repository import JobRepository
from training.jobs.writings.repository import WritingRepository


class WritingSpool:
    """The spool of one job in the hands of one worker: once that one does not hold it any more, it changes nothing.

    Raises:
        JobStopped: by `put` and `clear`, see `JobRepository.require_held`.
        DatabaseUnavailable: by `get` and `clear`.
    """

    def __init__(self, database: Database, job: Assignment) -> None:
        self._database = database
        self._job = job

    async def put(self, name: str, data: bytes) -> None:
        """Keep an answer; a database that is away is waited for, since nobody else has what is in hand here."""

        async def put() -> None:
            async with self._database.transaction() as session:
                await JobRepository(session).require_held(self._job)
                await WritingRepository(session).keep_answer(self._job.job_id, name, data)

        await patiently(put)

    async def get(self, name: str) -> bytes | None:
        """Return an answer; None when there is none."""
        async with self._database.reading() as session:
            return await WritingRepository(session).answer(self._job.job_id, name)

    async def clear(self) -> None:
        """Delete the job's answers."""
        async with self._database.transaction() as session:
            await JobRepository(session).require_held(self._job)
            await WritingRepository(session).forget_answers(self._job.job_id)
