"""The stage `publish`: an evaluated adapter becomes a version, and `live` when its gate lets it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kit.database import Database
from registry.client import RegistryClient
from registry.errors import VersionNotFound
from registry.manifest import Manifest, Owner
from training.jobs.assignment import Assignment
from training.jobs.errors import TranscriptsErased
from training.jobs.states import Stage
from training.jobs.triggers.repository import TrainedRepository
from training.jobs.workshop.device import Device
from training.jobs.workshop.examination import Examination, adapter_digest
from training.jobs.workshop.making import Making
from training.jobs.workshop.materials import Materials


class Publication:
    """Publishes a job's adapter with its report; transcripts that are erased meanwhile take it back."""

    def __init__(
        self,
        *,
        database: Database,
        registry: RegistryClient,
        materials: Materials,
        device: Device,
        making: Making,
        examination: Examination,
    ) -> None:
        self._database = database
        self._registry = registry
        self._materials = materials
        self._device = device
        self._making = making
        self._examination = examination

    async def publish(self, job: Assignment, done: Mapping[Stage, Mapping[str, Any]]) -> dict[str, Any]:
        """Do the stage; its result names the version, whether it is live, and the gate's reasons."""
        from training.evaluation import UserEvaluation
        from training.publishing import publish

        trained = await self._making.trained(job)
        result = done[Stage.EVALUATE]
        evaluation = UserEvaluation.from_json(result["evaluation"])
        if await adapter_digest(trained) != result["adapter_digest"]:  # trained again, on another machine
            evaluation = await self._examination.examine(job, trained)
        await self._materials.require_transcripts(job)
        published = await publish(
            trained,
            evaluation,
            owner=Owner.named(tenant=job.tenant, user=job.user),
            registry=self._registry,
            adapter=job.adapter,
            policy=self._materials.config(job).gate,
            base_directory=await self._device.base_directory(job.base, check=job.check),
            on_progress=job.tell,
        )
        try:
            await self._materials.require_transcripts(job)
        except TranscriptsErased:
            await self._take_back(published.manifest.version_id)
            raise
        await self._remember(job, published.manifest, words=done[Stage.SNAPSHOT]["words"])
        return {
            "version": published.manifest.version,
            "version_id": published.manifest.version_id,
            "live": published.live,
            "passed": published.decision.passed,
            "reasons": list(published.decision.reasons),
            "failed": list(published.decision.failed),
        }

    async def _take_back(self, version_id: str) -> None:
        try:
            await self._registry.lifecycle.erase_version(version_id, why="its transcripts were erased", force=True)
        except VersionNotFound:
            return

    async def _remember(self, job: Assignment, manifest: Manifest, *, words: int) -> None:
        """Write down what the user was trained on, which says later whether they are due again."""
        values = {
            "tenant": job.tenant,
            "user_id": job.user,
            "adapter": job.adapter,
            "words": words,
            "base": job.base,
            "job_id": job.job_id,
            "version_id": manifest.version_id,
            "trained_at": manifest.lineage.trained_at or manifest.created_at,
        }
        async with self._database.transaction() as session:
            await TrainedRepository(session).keep(values)
