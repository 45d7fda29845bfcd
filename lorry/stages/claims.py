"""Who else has questions written: nobody is to be paid twice, and no batch taken for another's."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from lorry.context import Context
from lorry.stages.writing import STATE
from training.config import DatasetConfig
from training.jobs.errors import TrainingActive
from training.jobs.jobs import Jobs
from training.jobs.states import ACTIVE
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
    tenant = context.settings.tenant
    for job in await Jobs(context.database).list(tenant=tenant, user=user, states=ACTIVE):
        writer = job.settings.get("dataset.writer", "extractive")
        if writer != "extractive":
            raise TrainingActive(
                f"{writer} writes questions about {user} for job {job.id} already, and would be paid twice; wait for it"
                f" (`lorry jobs events {job.id} --follow`), or end it (`lorry jobs cancel {job.id}`)",
                field="user_id",
                job_id=job.id,
            )
