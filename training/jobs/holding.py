"""A transaction of the worker that holds a job, which nobody takes from it before the commit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncSession

from kit.database import Database
from training.jobs.assignment import Assignment
from training.jobs.repository import JobRepository


@asynccontextmanager
async def holding(database: Database, job: Assignment) -> AsyncIterator[AsyncSession]:
    """Open a transaction of the worker that holds the job.

    Raises:
        JobStopped: for another one, see `JobRepository.require_held`.
    """
    async with database.transaction() as session:
        await JobRepository(session).require_held(job)
        yield session
