"""A worker's own disk, cleared of users who are erased: the folders of their jobs, their weights in others' folders.

Every worker does it with its signs of life; one that was away does it when it comes back. A folder that a job here is
working in is cleared when it has let go.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from pathlib import Path

from kit.database import Database
from training.erasure.models import DiskErasureRow
from training.erasure.repository import TrainingErasureRepository
from training.jobs.assignment import Assignment
from training.jobs.states import Stage
from training.jobs.workshop.materials import RIVALS


async def clear_disk(
    database: Database, *, worker_id: str, jobs_directory: Path, held: Mapping[str, Assignment]
) -> int:
    """Clear what this worker was asked to; return how many erasures are done here.

    Raises:
        DatabaseUnavailable: nothing was written down; the next call does it again.
        OSError: a folder cannot be removed.
    """
    async with database.reading() as session:
        asked = await TrainingErasureRepository(session).asked(worker_id)
    done = 0
    for each in asked:
        if _is_in_use(each, jobs_directory, held):
            continue
        removed = await asyncio.to_thread(_remove, each, jobs_directory)
        async with database.transaction() as session:
            await TrainingErasureRepository(session).end(each.erasure_id, worker_id, outcome="cleared", removed=removed)
        done += 1
    return done


def _is_in_use(asked: DiskErasureRow, jobs_directory: Path, held: Mapping[str, Assignment]) -> bool:
    if any(job_id in held for job_id in asked.job_ids):
        return True
    comparing = [job_id for job_id, job in held.items() if job.stage is Stage.EVALUATE]
    return any((jobs_directory / job / RIVALS / each).exists() for job in comparing for each in asked.version_ids)


def _remove(asked: DiskErasureRow, jobs_directory: Path) -> int:
    """Remove the folders and return how many files there were."""
    folders = [jobs_directory / job_id for job_id in asked.job_ids]
    rivals = list(jobs_directory.glob(f"*/{RIVALS}")) if jobs_directory.is_dir() else []
    folders += [folder / version_id for folder in rivals for version_id in asked.version_ids]
    removed = 0
    for folder in folders:
        if folder.exists():
            removed += sum(path.is_file() for path in folder.rglob("*"))
            shutil.rmtree(folder)
    return removed
