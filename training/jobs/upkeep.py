"""What a worker does besides its jobs, now and then: triggers, campaigns, adoption, and sweeping up."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from kit.database import Database
from kit.workers import backoff
from training.curations.repository import CurationRepository
from training.jobs.campaigns.campaigns import Campaigns
from training.jobs.endings import give_up
from training.jobs.errors import TranscriptsErased
from training.jobs.fleet.repository import WorkerRepository
from training.jobs.models import JobRow
from training.jobs.record.repository import RecordRepository
from training.jobs.repository import JobRepository
from training.jobs.settings import WorkerSettings
from training.jobs.states import Stage, State
from training.jobs.triggers.repository import TrainedRepository
from training.jobs.triggers.triggers import Triggers
from training.jobs.workshop.materials import RIVALS
from training.jobs.workshop.workshop import Workshop
from transcripts.store import TranscriptStore

_log = logging.getLogger(__name__)
_FORGET_WORKERS_DAYS = 30.0


class Upkeep:
    """The chores of all workers; each is done by whoever comes first and hurts nobody when done twice."""

    def __init__(self, settings: WorkerSettings, *, database: Database, workshop: Workshop) -> None:
        self._settings = settings
        self._database = database
        self._workshop = workshop
        self._triggers = Triggers(database, base=settings.training_base)
        self._campaigns = Campaigns(database)

    async def pull_triggers(self) -> None:
        """Have tenants' rules submit what is due."""
        await self._triggers.pull()

    async def advance_campaigns(self) -> None:
        """Have campaigns submit what is due."""
        await self._campaigns.advance()

    async def bury(self, worker_id: str) -> None:
        """Take its jobs from a worker that died; a job under which too many have died is given up.

        What goes on must then be put back into its queue.
        """
        async with self._database.transaction() as session:
            for row in await JobRepository(session).orphan(worker_id):
                await self._note_crash(session, row, "worker died", {"worker_id": worker_id})

    async def put_back_lost(self, lost: Callable[[Sequence[str]], Awaitable[set[str]]]) -> None:
        """Let jobs wait again whose run failed so that it could not say how: else nobody would ever go on with them.

        `lost` returns those of some runs that no queue and no worker has; a job that goes on losing its runs is given
        up like one under which workers die.
        """
        async with self._database.reading() as session:
            held = {f"{row.id}.{row.run}": row for row in await JobRepository(session).handed_over()}
        for run_id in sorted(await lost(list(held))) if held else ():
            row = held[run_id]
            pause = backoff(
                row.crashes + 1,
                base_seconds=self._settings.training_backoff_seconds,
                max_seconds=self._settings.training_max_backoff_seconds,
            )
            async with self._database.transaction() as session:
                back = await JobRepository(session).put_back(row.id, run=row.run, pause=pause)
                if back is not None:
                    _log.error("a run of a training job ended without an outcome: the job waits for another")
                    await self._note_crash(session, back, "run lost", {})

    async def _note_crash(self, session: AsyncSession, row: JobRow, kind: str, detail: dict[str, Any]) -> None:
        """Write down that a job has just crashed, and give it up when that was one time too many."""
        repository, record = JobRepository(session), RecordRepository(session)
        stage = (row.progress or {}).get("stage")
        await record.add_event(row.id, kind, {**detail, "stage": stage, "crashes": row.crashes})
        if row.crashes >= self._settings.training_crashes:
            error = give_up(row.crashes, stage)
            values = {"state": State.FAILED, "error": error, "ended_at": await repository.now()}
            await repository.update(row.id, values)
            await record.add_event(row.id, "failed", {"error": error})
            _log.error("a training job was given up: too many workers died under it")

    async def dead_workers(self) -> list[str]:
        """Return the ids of workers that have left or lapsed, this one aside."""
        async with self._database.reading() as session:
            return [each for each in await WorkerRepository(session).dead() if each != self._settings.worker_id]

    async def holders(self) -> set[str]:
        """Return the ids of workers that hold jobs, whether they live or not."""
        async with self._database.reading() as session:
            return await JobRepository(session).holders()

    async def sweep(self) -> None:
        """Remove what ended jobs have left, and what the transcripts were erased of."""
        async with self._database.transaction() as session:
            repository = JobRepository(session)
            now = await repository.now()
            failed_before = now - timedelta(days=self._settings.training_failed_days)
            await repository.forget_jobs(ended_before=now - timedelta(days=self._settings.training_history_days))
            remaining = await repository.remaining(failed_before=failed_before)
            remaining += await repository.half_published()
            bereft = await repository.bereft(failed_before=failed_before)
            await WorkerRepository(session).forget(silent_days=_FORGET_WORKERS_DAYS)
            await CurationRepository(session).forget_erased()
            await TrainedRepository(session).forget_erased()
        for row in remaining:
            await self._tidy(row)
        for row in bereft:
            await self._end_if_erased(row)
        await self._sweep_folders(failed_before)

    async def _end_if_erased(self, row: JobRow) -> None:
        async with self._database.transaction() as session:
            repository, record = JobRepository(session), RecordRepository(session)
            ids = (await record.stages(row.id)).get(Stage.SNAPSHOT, {}).get("transcript_ids")
            if ids is None or await TranscriptStore(session).has_all(row.tenant, row.user_id, ids):
                return
            locked = await repository.get(row.id, lock=True)
            if locked is None or locked.state not in {State.QUEUED, State.PAUSED, State.FAILED}:
                return
            gone = TranscriptsErased()
            values: dict[str, Any] = {
                "state": State.CANCELED,
                "error": {"code": "transcripts-erased", "message": gone.message, "stage": None},
                "ended_at": locked.ended_at or await repository.now(),
            }
            await repository.update(row.id, values)
            await record.forget_stages(row.id)
            await record.add_event(row.id, "canceled", {"error": values["error"]})
        await self._tidy(row)

    async def _tidy(self, row: JobRow) -> None:
        """Remove what is left of a job, unless it was retried since the row was read: then all of it is in use."""
        async with self._database.reading() as session:
            now = await JobRepository(session).get(row.id)
        if now is not None and now.ended_at is None:
            return
        await self._workshop.tidy(row)

    async def _sweep_folders(self, failed_before: datetime) -> None:
        """Remove this machine's folders of jobs that have ended or that nobody knows, and of earlier beginnings."""
        # Listed before the database is asked: whatever is in use was decided on before its folder was made.
        folders = {path.name: path for path in _within(self._settings.jobs_directory)}
        made = {name: [path for path in _within(folder) if path.name != RIVALS] for name, folder in folders.items()}
        async with self._database.reading() as session:
            known = await JobRepository(session).known(list(folders))
            beginnings = await RecordRepository(session).beginnings(list(folders))
        for name, folder in folders.items():
            state, ended_at = known.get(name, (State.CANCELED, failed_before))
            if ended_at is not None and not (state is State.FAILED and ended_at >= failed_before):
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
                continue
            beginning = beginnings.get(name)
            for path in made[name] if beginning != "" else ():
                if path.name != beginning:
                    await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)


def _within(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []
