"""The stage `evaluate`: everything that the gate decides by, measured on the base as it is served."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.canonical import sha256_bytes, sha256_json
from kit.database import Database
from registry.client import RegistryClient
from registry.manifest import Owner
from training.jobs.assignment import Assignment
from training.jobs.costs.repository import CostRepository, cost_row
from training.jobs.settings import WorkerSettings
from training.jobs.workshop.device import Device
from training.jobs.workshop.making import Making
from training.jobs.workshop.materials import RIVALS, Materials
from training.rivals import fetch_rivals

if TYPE_CHECKING:
    from training.evaluation import Evaluator, UserEvaluation
    from training.evaluation.leaks import Probe
    from training.runs import TrainedAdapter


class Examination:
    """Measures a job's adapter against the base, the profile in its prompt, and other users' live adapters."""

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        database: Database,
        registry: RegistryClient,
        materials: Materials,
        device: Device,
        making: Making,
    ) -> None:
        self._settings = settings
        self._database = database
        self._registry = registry
        self._materials = materials
        self._device = device
        self._making = making

    async def evaluate(self, job: Assignment) -> dict[str, Any]:
        """Do the stage; its result is the whole evaluation, and the digest of the adapter that it is about."""
        trained = await self._making.trained(job)
        evaluation = await self.examine(job, trained)
        async with self._database.transaction() as session:
            spent = cost_row(job, "evaluate", is_estimate=False, device_seconds=job.seconds)
            await CostRepository(session).keep(spent)
        return {"evaluation": evaluation.to_json(), "adapter_digest": await adapter_digest(trained)}

    async def examine(self, job: Assignment, trained: TrainedAdapter) -> UserEvaluation:
        """Return what was found; it holds numbers and no text."""
        dataset = await self._making.dataset(job)
        rivals = await fetch_rivals(
            self._registry,
            owner=Owner.named(tenant=job.tenant, user=job.user),
            adapter=job.adapter,
            base=trained.base,
            limit=self._settings.training_rivals,
            directory=self._materials.folder(job.job_id) / RIVALS,
        )
        probes = await self._probes(job)

        def evaluate(evaluator: Evaluator, start: Path | None) -> UserEvaluation:
            from training.evaluation import Checks, Contestant

            contestant = Contestant(
                dataset=dataset, adapter_directory=trained.adapter_directory, probes=probes, start=start
            )
            report = evaluator.evaluate(
                {"user": contestant},
                max_length=trained.config.training.max_length,
                others=rivals,
                checks=Checks(),
                on_progress=job.advance,
            )
            return report.users["user"]

        try:
            async with (
                self._making.borrowed_start(job, trained.config, base=trained.base) as start,
                self._device.evaluator(job.base, check=job.check) as evaluator,
            ):
                return await asyncio.to_thread(evaluate, evaluator, start)
        finally:  # other people's weights: they may be erased while this job waits for a retry
            await asyncio.to_thread(shutil.rmtree, self._materials.folder(job.job_id) / RIVALS, ignore_errors=True)

    async def _probes(self, job: Assignment) -> tuple[Probe, ...]:
        """Return what redaction finds, replaced before the training or not: the adapter must not say it."""
        finder = self._materials.finder
        if finder is None:
            return ()
        transcripts = await self._materials.transcripts(job)

        def probe() -> tuple[Probe, ...]:
            from training.evaluation.leaks import probe_redacted  # here: see `Device.trainer`

            return tuple(probe_redacted(transcripts, finder))

        return await asyncio.to_thread(probe)


async def adapter_digest(trained: TrainedAdapter) -> str:
    """Return the digest of the adapter's files by name: of equal ones, equal."""

    def digest(directory: Path) -> str:
        files = sorted(path for path in directory.iterdir() if path.is_file())
        return sha256_json({path.name: sha256_bytes(path.read_bytes()) for path in files})

    return await asyncio.to_thread(digest, trained.adapter_directory)
