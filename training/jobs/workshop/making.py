"""The stages `dataset` and `train`: what a job's folder holds, made again where it is missing."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING, Any

from kit.database import Database
from training.curations.repository import CurationRepository
from training.dataset import Dataset, build_dataset
from training.errors import AdapterUnreadable, DatasetError, TrainingPaused
from training.jobs.assignment import Assignment, StopReason
from training.jobs.costs.repository import CostRepository, cost_row
from training.jobs.settings import WorkerSettings
from training.jobs.workshop.device import Device
from training.jobs.workshop.materials import Materials
from training.jobs.writings.repository import WritingRepository

if TYPE_CHECKING:
    from training.loop import TrainingProgress
    from training.runs import TrainedAdapter
    from training.trainer import Trainer


class Making:
    """Makes datasets and adapters; what a process that was killed had made is found again by the job's id."""

    def __init__(self, settings: WorkerSettings, *, database: Database, materials: Materials, device: Device) -> None:
        self._settings = settings
        self._database = database
        self._materials = materials
        self._device = device

    async def build(self, job: Assignment) -> dict[str, Any]:
        """Do the stage `dataset`; its result counts examples and redactions."""
        dataset = await self.dataset(job)
        redaction = dataset.redaction or {}
        return {"digest": dataset.digest, "counts": dataset.counts, "redacted": dict(redaction.get("counts", {}))}

    async def train(self, job: Assignment) -> dict[str, Any]:
        """Do the stage `train`; its result says how many steps, tokens and seconds it took."""
        record = (await self.trained(job)).record
        async with self._database.transaction() as session:
            spent = cost_row(
                job, "train", is_estimate=False, device_seconds=record.seconds, trained_tokens=record.tokens
            )
            await CostRepository(session).keep(spent)
        return {
            "dataset_digest": record.dataset_digest,
            "steps": record.steps,
            "tokens": record.tokens,
            "seconds": record.seconds,
            "loss": record.losses[-1] if record.losses else None,
            "resumed_from": record.resumed_from,
        }

    async def dataset(self, job: Assignment) -> Dataset:
        """Return the job's dataset, built again when this machine does not have it whole."""
        directory = self._materials.folder(job.job_id) / "dataset"
        if directory.exists():
            try:
                return await asyncio.to_thread(Dataset.load, directory)
            except DatasetError:
                await asyncio.to_thread(shutil.rmtree, directory)
        transcripts = await self._materials.transcripts(job)
        async with self._database.reading() as session:
            written = await WritingRepository(session).written(job.job_id)
            curation = await CurationRepository(session).get(tenant=job.tenant, user=job.user)
        config = self._materials.config(job)

        def build(trainer: Trainer) -> Dataset:
            return build_dataset(
                transcripts,
                config=config.dataset,
                directory=directory,
                redactor=self._materials.redactor,
                written=written,
                curation=curation,
                scorer=lambda examples: trainer.base_losses(examples, max_length=config.training.max_length),
            )

        async with self._device.trainer(job.base) as trainer:
            return await asyncio.to_thread(build, trainer)

    async def trained(self, job: Assignment) -> TrainedAdapter:
        """Return the job's adapter, trained (on) when this machine does not have it whole."""
        from training.runs import TrainedAdapter

        folder = self._materials.folder(job.job_id)
        directory = folder / "run"
        if directory.exists():
            try:
                return await asyncio.to_thread(TrainedAdapter.load, directory)
            except AdapterUnreadable:
                await asyncio.to_thread(shutil.rmtree, directory)
        dataset = await self.dataset(job)
        await self._materials.require_transcripts(job)
        config = self._materials.config(job, base_directory=await self._device.base_directory(job.base))
        teaches = config.training.objective == "distillation"
        shown = (await self._materials.prepared(job)).by_original if teaches else {}
        async with self._device.trainer(job.base) as trainer:
            return await asyncio.to_thread(
                trainer.train,
                dataset,
                config,
                directory,
                lambda progress: _tell(job, progress),
                transcripts=shown,
                checkpoints=folder / "checkpoints",
                checkpoint_seconds=self._settings.training_checkpoint_seconds,
            )


def _tell(job: Assignment, progress: TrainingProgress) -> None:
    """Note a training's step; a job that shall go on later leaves a checkpoint first."""
    job.tell(progress.step, progress.of)
    if job.stopped in {StopReason.PAUSED, StopReason.PARKED}:
        raise TrainingPaused
    job.check()
