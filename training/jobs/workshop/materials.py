"""What every stage of a job starts from: its folder, its settings, its transcripts."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from kit.database import Database
from training.config import ResolvedConfig, resolve
from training.jobs.assignment import Assignment
from training.jobs.errors import TranscriptsErased
from training.jobs.settings import WorkerSettings
from training.preparation import Prepared, prepare
from transcripts.redaction import Redactor
from transcripts.store import TranscriptStore
from transcripts.transcript import Transcript

RIVALS = "rivals"  # in a job's folder: other people's adapters, while its own is compared with them


class Materials:
    """Reads what a job is about; whatever lies in its folder can be made again from this on another machine.

    Raises:
        ConfigInvalid: the operator's bounds of the gate cannot be read.
    """

    def __init__(self, settings: WorkerSettings, *, database: Database, redactor: Redactor | None) -> None:
        self._settings = settings
        self._bounds = settings.gate_bounds()
        self._database = database
        self.finder = redactor  # finds what the adapter must not say, also where nothing is replaced
        self.redactor = redactor if settings.training_redact else None

    def folder(self, job_id: str) -> Path:
        """Return where everything lies that this machine has of a job."""
        return self._settings.jobs_directory / job_id

    def made(self, job: Assignment) -> Path:
        """Return where this machine keeps what is made of the job's transcripts, since its beginning."""
        return self.folder(job.job_id) / job.beginning

    def config(self, job: Assignment, *, base_directory: Path | None = None) -> ResolvedConfig:
        """Return the job's complete configuration, with its user's own seed.

        Raises:
            ConfigInvalid: the job asks less of its version than this worker's operator does.
        """
        environment: dict[str, Any] = {"base": str(base_directory) if base_directory else job.base}
        if self._settings.training_threads is not None:
            environment["threads"] = self._settings.training_threads
        settings = {**job.settings, "start": job.start or job.settings.get("start")}
        resolved = resolve(arguments=settings, environment=environment, bounds=self._bounds)
        return resolved.for_user(job.tenant, job.user)

    async def require_transcripts(self, job: Assignment) -> None:
        """Raise `TranscriptsErased` unless the user still has every transcript that the job is about."""
        async with self._database.reading() as session:
            if not await TranscriptStore(session).has_all(job.tenant, job.user, job.transcript_ids):
                raise TranscriptsErased

    async def transcripts(self, job: Assignment) -> list[Transcript]:
        """Return the transcripts that the job is about, as they are stored.

        Raises:
            TranscriptsErased: one of them is gone.
        """
        async with self._database.transaction() as session:
            wanted = set(job.transcript_ids)
            found = [each async for each in TranscriptStore(session).stream(job.tenant, job.user) if each.id in wanted]
        if len(found) != len(wanted):
            raise TranscriptsErased
        return found

    async def prepared(self, job: Assignment) -> Prepared:
        """Return the job's transcripts split and redacted: what may be shown to a question writer."""
        transcripts = await self.transcripts(job)
        config = self.config(job).dataset
        return await asyncio.to_thread(prepare, transcripts, config=config, redactor=self.redactor)
