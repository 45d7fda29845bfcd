"""What each stage does: transcripts → questions → dataset → adapter → evaluation → version.

Every stage may run again after its process was killed: what it bought, built or trained before is found again by the
job's id. Whatever lies on this machine's disk can be derived again on another from the database alone.
"""

from __future__ import annotations

import asyncio
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kit.database import Database
from registry.client import RegistryClient
from training.jobs.assignment import Assignment
from training.jobs.errors import NothingToTrainOn
from training.jobs.finished.repository import FinishedRepository
from training.jobs.models import JobRow
from training.jobs.settings import WorkerSettings
from training.jobs.states import Stage, State
from training.jobs.workshop.device import Device
from training.jobs.workshop.examination import Examination
from training.jobs.workshop.making import Making
from training.jobs.workshop.materials import Materials
from training.jobs.workshop.publication import Publication
from training.jobs.workshop.writing import Writing
from training.starts import pin_start
from training.writers.settings import WriterSettings
from transcripts.redaction import Redactor
from transcripts.store import TranscriptStore


class Workshop:
    """The stages of one worker: its disk, its device, and its way to registry and question writers."""

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        database: Database,
        registry: RegistryClient,
        writers: WriterSettings,
        redactor: Redactor | None,
    ) -> None:
        self._database = database
        self._registry = registry
        self._materials = Materials(settings, database=database, redactor=redactor)
        self._writing = Writing(writers, database=database, materials=self._materials)
        device = Device(settings)
        self._making = Making(settings, database=database, registry=registry, materials=self._materials, device=device)
        self._examination = Examination(
            settings,
            database=database,
            registry=registry,
            materials=self._materials,
            device=device,
            making=self._making,
        )
        self._publication = Publication(
            database=database,
            registry=registry,
            materials=self._materials,
            device=device,
            making=self._making,
            examination=self._examination,
        )

    def folder(self, job_id: str) -> Path:
        """Return where everything lies that this machine has of a job."""
        return self._materials.folder(job_id)

    async def require_transcripts(self, job: Assignment) -> None:
        """Raise `TranscriptsErased` unless the user still has every transcript that the job is about."""
        await self._materials.require_transcripts(job)

    async def perform(self, job: Assignment, stage: Stage, done: Mapping[Stage, Mapping[str, Any]]) -> dict[str, Any]:
        """Do one stage and return its result: small, and without a word of anybody's.

        Raises:
            JobStopped: see `Assignment.check`.
            TrainingError, RegistryError, KitError, OSError: what that stage can fail with.
        """
        match stage:
            case Stage.SNAPSHOT:
                return await self._snapshot(job)
            case Stage.ESTIMATE:
                return await self._writing.estimate(job)
            case Stage.WRITE:
                return await self._writing.write(job)
            case Stage.DATASET:
                return await self._making.build(job)
            case Stage.TRAIN:
                return await self._making.train(job)
            case Stage.EVALUATE:
                return await self._examination.evaluate(job)
            case Stage.PUBLISH:
                return await self._publication.publish(job, done)

    async def _snapshot(self, job: Assignment) -> dict[str, Any]:
        """Decide which transcripts the job is about, and what it begins with; later ones are for the next job."""
        async with self._database.transaction() as session:
            store = TranscriptStore(session)
            ids = [each.id async for each in store.stream(job.tenant, job.user)]
            summary = await store.summary(job.tenant, job.user)
        if not ids:
            raise NothingToTrainOn(f"{job.user} has no transcripts to train on; import some first", field="user_id")
        config = await pin_start(self._materials.config(job), self._registry, tenant=job.tenant)
        decided = {"beginning": uuid.uuid4().hex, "start": config.training.start}
        return {"transcript_ids": ids, "words": summary.user_words, **decided}

    async def tidy(self, row: JobRow) -> bool:
        """Remove what is left of a job that has ended, here, in the registry and at its question writer's.

        False when one of the two does not answer: what is left there is removed by another call.
        """
        job = Assignment.of(row)
        await asyncio.to_thread(shutil.rmtree, self.folder(job.job_id), ignore_errors=True)
        async with self._database.transaction() as session:
            await FinishedRepository(session).forget(job.job_id)
        await self._writing.forget_content(job.job_id)  # whether or not the service answers
        gone = row.state != State.CANCELED or await self._publication.take_back(job)
        if not await self._writing.clear(job):
            return False
        await self._writing.forget(job.job_id)
        return gone
