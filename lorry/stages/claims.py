"""What else is done for a user: nobody is to be paid or trained twice, and no batch taken for another's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path

from kit.names import check_name
from lorry.context import Context
from lorry.stages.writing import STATE
from training.config import DatasetConfig
from training.jobs.errors import TrainingActive
from training.jobs.job import Job
from training.jobs.jobs import Jobs
from training.jobs.states import ACTIVE, State
from training.jobs.writings.repository import WritingRepository


async def claimed_batches(context: Context, place: Path) -> set[str]:
    """Return the ids of all batches that jobs, and other writings of this home, know to be theirs.

    `place` is the writing that asks.
    """
    async with context.database.reading() as session:
        jobs = await WritingRepository(session).claimed_batches()
    return jobs | await asyncio.to_thread(_claimed_here, context.home.folder("datasets"), place)


def _claimed_here(folder: Path, place: Path) -> set[str]:
    claimed: set[str] = set()
    for path in folder.glob(f"*/*/writing/*/{STATE}"):
        if path.parent == place:
            continue
        try:
            claimed.update(json.loads(path.read_bytes()).get("batches", ()))
        except (OSError, ValueError, AttributeError):
            continue  # it has just gone, or is damaged: what it knew is not known any more
    return claimed


async def require_nobody_else_pays(context: Context, *, user: str, config: DatasetConfig) -> None:
    """Refuse to buy what a job of the user's buys, or is about to.

    Raises:
        TrainingActive: naming the job.
    """
    if config.writer == "extractive":
        return
    for job in await _active(context, user=user):
        writer = job.settings.get("dataset.writer", "extractive")
        if writer != "extractive":
            raise _refusal(
                f"{writer} writes questions about {user} for job {job.id} already, and would be paid twice", job
            )


async def require_nobody_else_trains(context: Context, users: Iterable[str]) -> None:
    """Refuse to train users whom a job trains, or is about to: one training per user at a time.

    Raises:
        TrainingActive: naming the job.
    """
    for user in users:
        for job in await _active(context, user=check_name(user, field="user_id")):
            raise _refusal(f"job {job.id} trains {user}, and is {job.state}; one training per user at a time", job)


async def _active(context: Context, *, user: str) -> list[Job]:
    return await Jobs(context.database).list(tenant=context.settings.tenant, user=user, states=ACTIVE)


def _refusal(what: str, job: Job) -> TrainingActive:
    if job.state is State.PAUSED:
        going_on = f"have it go on (`lorry jobs resume {job.id}`)"
    else:
        going_on = f"wait for it (`lorry jobs events {job.id} --follow`)"
    what_to_do = f"{going_on}, or end it (`lorry jobs cancel {job.id}`)"
    return TrainingActive(f"{what}; {what_to_do}", field="user_id", job_id=job.id)
