"""The stage `publish`: an evaluated adapter becomes a version, and `live` when its gate lets it.

The job says beforehand what it is about to publish: a worker may die between the registry's answer and the stage's end,
and a job that is canceled then must leave nothing behind.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from kit.database import Database
from registry.client import RegistryClient
from registry.errors import (
    AdapterNotFound,
    AliasConflict,
    AliasNotFound,
    NothingToRollBackTo,
    RegistryError,
    VersionNotFound,
)
from registry.manifest import Manifest, Owner
from training.jobs.assignment import Assignment
from training.jobs.errors import JobStopped, TranscriptsErased
from training.jobs.record.repository import RecordRepository
from training.jobs.repository import JobRepository
from training.jobs.states import Stage, State
from training.jobs.triggers.repository import TrainedRepository
from training.jobs.workshop.device import Device
from training.jobs.workshop.examination import Examination, adapter_digest
from training.jobs.workshop.making import Making
from training.jobs.workshop.materials import Materials

_log = logging.getLogger(__name__)
_WHY = "its training was canceled"


class Publication:
    """Publishes a job's adapter with its report; what a canceled job has published is taken back."""

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
            before=lambda digest: self._announce(job, digest),
            on_progress=job.tell,
        )
        try:
            await self._materials.require_transcripts(job)
            await self._require_going_on(job)
        except (TranscriptsErased, JobStopped):
            await self._erase(job, published.manifest.version_id)
            raise
        await self._remember(job, published.manifest)
        return {
            "version": published.manifest.version,
            "version_id": published.manifest.version_id,
            "live": published.live,
            "passed": published.decision.passed,
            "reasons": list(published.decision.reasons),
            "failed": list(published.decision.failed),
        }

    async def take_back(self, job: Assignment) -> bool:
        """Erase what a canceled job has published, if anything; False when the registry could not do it now."""
        async with self._database.reading() as session:
            row = await JobRepository(session).get(job.job_id)
        if row is None or row.publishing is None:
            return True
        try:
            for version_id in await self._versions(job, row.publishing):
                await self._erase(job, version_id)
        except RegistryError as exc:
            _log.warning("the registry still has what a canceled job has published: %s", type(exc).__name__)
            return False
        await self._keep_digest(job, None)
        return True

    async def _announce(self, job: Assignment, digest: str) -> None:
        """Write down what is about to be published, unless the registry has it from somebody else already."""
        async with self._database.reading() as session:
            row = await JobRepository(session).get(job.job_id)
        known = row.publishing if row is not None else None
        if known == digest:
            return
        if known is not None:
            await self.take_back(job)  # of a beginning before
        if not await self._versions(job, digest):
            await self._keep_digest(job, digest)

    async def _versions(self, job: Assignment, digest: str) -> list[str]:
        """Return the versions of the job's adapter that have this content and are not erased: at most one."""
        owner = Owner.named(tenant=job.tenant, user=job.user)
        try:
            versions = await self._registry.list_versions(owner, job.adapter)
        except AdapterNotFound:
            return []
        return [each.version_id for each in versions if each.content_digest == digest and each.erased_at is None]

    async def _require_going_on(self, job: Assignment) -> None:
        """Raise `JobStopped` when the job was canceled behind this worker's back, which lost the database meanwhile."""
        async with self._database.reading() as session:
            row = await JobRepository(session).get(job.job_id)
        if row is None or row.state == State.CANCELED:
            raise JobStopped("the job was canceled")

    async def _erase(self, job: Assignment, version_id: str) -> None:
        """Erase a version; `live` names what it named before, where it names this one."""
        owner = Owner.named(tenant=job.tenant, user=job.user)
        lifecycle = self._registry.lifecycle
        with suppress(AdapterNotFound, AliasNotFound, AliasConflict, NothingToRollBackTo):
            await lifecycle.rollback(owner, job.adapter, expected_version_id=version_id, why=_WHY)
        with suppress(VersionNotFound):
            await lifecycle.erase_version(version_id, why=_WHY, force=True)

    async def _keep_digest(self, job: Assignment, digest: str | None) -> None:
        async with self._database.transaction() as session:
            await JobRepository(session).update(job.job_id, {"publishing": digest})

    async def _remember(self, job: Assignment, manifest: Manifest) -> None:
        """Write down what the user was trained on, which says later whether they are due again."""
        values = {
            "tenant": job.tenant,
            "user_id": job.user,
            "adapter": job.adapter,
            "base": job.base,
            "job_id": job.job_id,
            "version_id": manifest.version_id,
            "trained_at": manifest.lineage.trained_at or manifest.created_at,
        }
        async with self._database.transaction() as session:
            # Counted again since the stage began, perhaps; see `TrainedRepository.recount`.
            snapshot = await RecordRepository(session).result(job.job_id, Stage.SNAPSHOT, lock=True)
            if snapshot is not None:  # else the job is gone: its user was erased, or it begins anew
                await TrainedRepository(session).keep({**values, "words": snapshot["words"]})
