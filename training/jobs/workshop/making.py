"""The stages `dataset` and `train`: what a job's folder holds, made again where it is missing."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.database import Database
from registry.client import RegistryClient
from registry.manifest import BaseIdentity
from training.config import ResolvedConfig
from training.curations.repository import CurationRepository
from training.dataset import Dataset, build_dataset, read_report
from training.errors import AdapterUnreadable, DatasetError, TrainingError, TrainingPaused
from training.examples import Example
from training.jobs.assignment import Assignment, StopReason
from training.jobs.costs.repository import CostRepository, cost_row
from training.jobs.finished.shelf import Shelf
from training.jobs.settings import WorkerSettings
from training.jobs.states import Stage
from training.jobs.workshop.device import Device
from training.jobs.workshop.materials import Materials
from training.jobs.writings.repository import WritingRepository
from training.starts import borrowed_start, pin_start

if TYPE_CHECKING:
    from training.loop import TrainingProgress
    from training.runs import TrainedAdapter
    from training.trainer import Trainer


class Making:
    """Makes datasets and adapters; what a process that was killed had made is found again by the job's id."""

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        database: Database,
        registry: RegistryClient,
        materials: Materials,
        device: Device,
    ) -> None:
        self._settings = settings
        self._database = database
        self._registry = registry
        self._materials = materials
        self._device = device
        self._shelf = Shelf(database)

    async def build(self, job: Assignment) -> dict[str, Any]:
        """Do the stage `dataset`; its result counts examples, redactions, and what was found in the examples."""
        dataset = await self.dataset(job)
        report = await asyncio.to_thread(read_report, self._directory(job))
        redaction = dataset.redaction or {}
        return {
            "digest": dataset.digest,
            "counts": dataset.counts,
            "redacted": dict(redaction.get("counts", {})),
            "quality": report.figures() if report else None,
        }

    async def train(self, job: Assignment) -> dict[str, Any]:
        """Do the stage `train`; its result says how many steps, tokens and seconds it took."""
        record = (await self.trained(job)).record
        await self._keep_cost(job, seconds=record.seconds, tokens=record.tokens)
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
        directory = self._directory(job)
        if directory.exists():
            try:
                await asyncio.to_thread(read_report, directory)
                return await asyncio.to_thread(Dataset.load, directory)
            except DatasetError:
                await asyncio.to_thread(shutil.rmtree, directory)
        transcripts = await self._materials.transcripts(job)
        async with self._database.reading() as session:
            written = await WritingRepository(session).written(job.job_id)
            curation = await CurationRepository(session).get(tenant=job.tenant, user=job.user)
        config = self._materials.config(job)

        def tell(done: int, total: int) -> None:
            job.check()
            if job.stage is Stage.DATASET:  # and not the training of a job that was begun on another machine
                job.tell(done, total)

        def score(trainer: Trainer, examples: Sequence[Example]) -> list[float | None]:
            return trainer.base_losses(examples, max_length=config.training.max_length, on_progress=tell)

        def build(trainer: Trainer) -> Dataset:
            return build_dataset(
                transcripts,
                config=config.dataset,
                directory=directory,
                redactor=self._materials.redactor,
                written=written,
                curation=curation,
                scorer=partial(score, trainer),
            )

        async with self._device.trainer(job.base, check=job.check) as trainer:
            return await asyncio.to_thread(build, trainer)

    def _directory(self, job: Assignment) -> Path:
        return self._materials.made(job) / "dataset"

    async def trained(self, job: Assignment) -> TrainedAdapter:
        """Return the job's adapter, trained (on) when neither this machine nor the database has it whole."""
        directory = self._materials.made(job) / "run"
        found = await self._found(directory)
        if found is None and await self._shelf.restore(job, directory):
            found = await self._found(directory)
        if found is None:
            found = await self._trained_now(job, directory)
        await self._shelf.keep(job, directory)
        return found

    async def _found(self, directory: Path) -> TrainedAdapter | None:
        """Return the finished training that lies there; what cannot be read is removed."""
        from training.runs import TrainedAdapter

        if not directory.exists():
            return None
        try:
            return await asyncio.to_thread(TrainedAdapter.load, directory)
        except AdapterUnreadable:
            await asyncio.to_thread(shutil.rmtree, directory)
            return None

    async def _trained_now(self, job: Assignment, directory: Path) -> TrainedAdapter:
        dataset = await self.dataset(job)
        await self._materials.require_transcripts(job)
        config = self._materials.config(
            job, base_directory=await self._device.base_directory(job.base, check=job.check)
        )
        # An older release, or a retry, has left open which version it is.
        config = await pin_start(config, self._registry, tenant=job.tenant)
        teaches = config.training.objective == "distillation"
        shown = (await self._materials.prepared(job)).by_original if teaches else {}
        checkpoints = directory.parent / "checkpoints"
        meter = _Meter(job)
        async with (
            self._device.trainer(job.base, check=job.check) as trainer,
            self.borrowed_start(job, config, base=trainer.base_identity) as start,
        ):
            try:
                trained = await asyncio.to_thread(
                    trainer.train,
                    dataset,
                    config,
                    directory,
                    meter.tell,
                    start=start,
                    transcripts=shown,
                    checkpoints=checkpoints,
                    checkpoint_seconds=self._settings.training_checkpoint_seconds,
                )
            except (TrainingError, OSError, MemoryError):
                await self._set_aside(job, meter)
                await self._keep_cost(job, seconds=meter.seconds)
                raise
        await self._set_aside(job, meter)
        return trained

    async def _set_aside(self, job: Assignment, meter: _Meter) -> None:
        """Have what it took before, or elsewhere, count beside a training that has begun anew."""
        if meter.began_anew:
            async with self._database.transaction() as session:
                await CostRepository(session).set_aside(job.job_id, run=job.run, kind="train")

    def borrowed_start(
        self, job: Assignment, config: ResolvedConfig, *, base: BaseIdentity
    ) -> AbstractAsyncContextManager[Path | None]:
        """Have the adapter that the job's training begins with on this machine while the block runs."""
        beside = self._materials.made(job)
        return borrowed_start(config.training.start, self._registry, tenant=job.tenant, base=base, beside=beside)

    async def _keep_cost(self, job: Assignment, *, seconds: float, tokens: int = 0) -> None:
        """Write down what a training cost so far, all its attempts together: it counts whatever becomes of the job."""
        spent = cost_row(job, "train", is_estimate=False, device_seconds=seconds, trained_tokens=tokens)
        async with self._database.transaction() as session:
            await CostRepository(session).keep(spent)


class _Meter:
    """Listens to a training: how far it is, how long it took, and whether it must stop."""

    def __init__(self, job: Assignment) -> None:
        self._job = job
        self.seconds = 0.0
        self.began_anew = False

    def tell(self, progress: TrainingProgress) -> None:
        """Note a step; a job that shall go on later leaves a checkpoint first."""
        self.seconds = progress.seconds
        self.began_anew |= progress.step == 1
        self._job.tell(progress.step, progress.of)
        if self._job.stopped in {StopReason.PAUSED, StopReason.PARKED}:
            raise TrainingPaused
        self._job.check()
