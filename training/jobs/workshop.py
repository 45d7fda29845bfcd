"""What each stage does: transcripts → questions → dataset → adapter → evaluation → version.

Every stage may run again after its process was killed: what it bought, built or trained before is found again by the
job's id. Whatever lies on this machine's disk can be derived again on another from the database alone.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.canonical import sha256_bytes, sha256_json
from kit.database import Database
from registry.client import RegistryClient
from registry.errors import RegistryError, RegistryUnavailable, VersionNotFound
from registry.manifest import Owner
from training.config import ResolvedConfig, TrainingRequest, resolve
from training.curations.repository import CurationRepository
from training.dataset import Dataset, build_dataset
from training.errors import DatasetError, TrainingPaused, WriterUnavailable
from training.jobs.assignment import Assignment, StopReason
from training.jobs.errors import NothingToTrainOn, QuotaExhausted, TranscriptsErased
from training.jobs.jobs import spent_dollars
from training.jobs.repository import JobRepository
from training.jobs.settings import WorkerSettings
from training.jobs.states import Phase, Stage
from training.preparation import Prepared, prepare
from training.writers.cost import Cost
from training.writers.factory import make_writer
from training.writers.settings import WriterSettings
from training.writers.spool import DirectorySpool
from training.writers.state import WriterState
from training.writers.writer import QuestionWriter, Written
from transcripts.redaction import Redactor
from transcripts.store import TranscriptStore
from transcripts.transcript import Transcript

if TYPE_CHECKING:
    from training.evaluation import Evaluator, UserEvaluation
    from training.loop import TrainingProgress
    from training.runs import TrainedAdapter
    from training.trainer import Trainer

_ALIAS = "live"
_WAIT_SECONDS = 0.25  # between two looks at whether a job that waits must stop
_MAX_LISTED = 200
_DISCARD_STEPS = 20


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    base: str
    directory: Path
    trainer: Trainer | None = None
    evaluator: Evaluator | None = None


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
        self._settings = settings
        self._database = database
        self._registry = registry
        self._writers = writers
        self._redactor = redactor if settings.training_redact else None
        self._device = asyncio.Lock()
        self._loaded: _Loaded | None = None

    def folder(self, job_id: str) -> Path:
        """Return where everything lies that this machine has of a job."""
        return self._settings.jobs_directory / job_id

    async def perform(self, job: Assignment, stage: Stage, done: Mapping[Stage, Mapping[str, Any]]) -> dict[str, Any]:
        """Do one stage and return its result: small, and without a word of anybody's.

        Raises:
            JobStopped: see `Assignment.check`.
            TrainingError, RegistryError, KitError, OSError: what that stage can fail with.
        """
        stages: dict[Stage, Callable[[Assignment, Mapping[Stage, Mapping[str, Any]]], Any]] = {
            Stage.SNAPSHOT: self._snapshot,
            Stage.ESTIMATE: self._estimate,
            Stage.WRITE: self._write,
            Stage.DATASET: self._dataset,
            Stage.TRAIN: self._train,
            Stage.EVALUATE: self._evaluate,
            Stage.PUBLISH: self._publish,
        }
        result: dict[str, Any] = await stages[stage](job, done)
        return result

    # ----- prepare

    async def _snapshot(self, job: Assignment, done: Mapping[Stage, Mapping[str, Any]]) -> dict[str, Any]:
        """Decide which transcripts the job is about; later ones are for the next job."""
        async with self._database.transaction() as session:
            store = TranscriptStore(session)
            ids = [each.id async for each in store.stream(job.tenant, job.user)]
            summary = await store.summary(job.tenant, job.user)
        if not ids:
            raise NothingToTrainOn(f"{job.user} has no transcripts to train on", field="user_id")
        return {"transcript_ids": ids, "words": summary.user_words}

    async def _estimate(self, job: Assignment, done: Mapping[Stage, Mapping[str, Any]]) -> dict[str, Any]:
        """Reckon what the job will cost, and refuse what the tenant's quota does not allow."""
        prepared = await self._prepared(job)
        writer = await self._writer(job)
        cost = await writer.estimate(prepared.kept)
        async with self._database.transaction() as session:
            repository = JobRepository(session)
            quota = await repository.quota(job.tenant)
            spent = await spent_dollars(session, job.tenant)
            await repository.keep_cost(_cost_row(job, "write", cost, is_estimate=True))
            for kind in ("train", "evaluate"):
                seconds = await repository.mean_device_seconds(kind)
                if seconds is not None:
                    await repository.keep_cost(_row(job, kind, is_estimate=True, device_seconds=seconds))
        wanted = cost.dollars or 0.0
        if quota.max_monthly_dollars is not None and wanted and spent + wanted > quota.max_monthly_dollars:
            raise QuotaExhausted(
                f"writing would cost about {wanted:.2f} dollars, and of {quota.max_monthly_dollars:.2f} in 30 days "
                f"{spent:.2f} are spent",
                field="max_monthly_dollars",
            )
        return {"writer": writer.name, "cost": cost.to_json()}

    async def _write(self, job: Assignment, done: Mapping[Stage, Mapping[str, Any]]) -> dict[str, Any]:
        """Have questions written. The writer's state is kept before and after each of its steps."""
        prepared = await self._prepared(job)
        writer = await self._writer(job)
        kept = await self._kept_writing(job.job_id)
        if kept.written is not None:
            return _written_result(kept.written)
        state = kept.state or await writer.begin(prepared.kept)
        await self._keep_state(job, state)
        while not state.written:
            job.check()
            job.tell(*state.progress)
            state = await writer.poll(state, prepared.kept)
            await self._keep_state(job, state)
            if not state.written:
                await self._wait(job, state.wait_seconds)
        written = await writer.collect(state, prepared.kept)
        async with self._database.transaction() as session:
            repository = JobRepository(session)
            await repository.keep_writing(job.job_id, written=written.to_json())
            await repository.keep_cost(_cost_row(job, "write", written.cost, is_estimate=False))
        await self._discard(job, writer, state)
        return _written_result(written)

    async def _keep_state(self, job: Assignment, state: WriterState) -> None:
        async with self._database.transaction() as session:
            repository = JobRepository(session)
            await repository.keep_writing(job.job_id, state=state.to_json())
            await repository.update(job.job_id, {"crashes": 0})  # a day's wait outlives many workers, and kills none
            if state.spent.usage.requests:
                await repository.keep_cost(_cost_row(job, "write", state.spent, is_estimate=False))

    async def _discard(self, job: Assignment, writer: QuestionWriter, state: WriterState) -> None:
        """Delete what the service keeps; what it does not delete now is deleted by `tidy`, later."""
        try:
            for _ in range(_DISCARD_STEPS):
                if state.discarded:
                    return
                state = await writer.discard(state)
                await self._keep_state(job, state)
                if not state.discarded:
                    await self._wait(job, min(state.wait_seconds, 5.0))
        except WriterUnavailable:
            return

    async def _wait(self, job: Assignment, seconds: float) -> None:
        """Wait, but notice within a moment when the job must stop."""
        end = asyncio.get_running_loop().time() + seconds
        while (left := end - asyncio.get_running_loop().time()) > 0:
            job.check()
            await asyncio.sleep(min(left, _WAIT_SECONDS))

    # ----- train

    async def _dataset(self, job: Assignment, done: Mapping[Stage, Mapping[str, Any]]) -> dict[str, Any]:
        dataset = await self._ensure_dataset(job)
        redaction = dataset.redaction or {}
        return {"digest": dataset.digest, "counts": dataset.counts, "redacted": dict(redaction.get("counts", {}))}

    async def _train(self, job: Assignment, done: Mapping[Stage, Mapping[str, Any]]) -> dict[str, Any]:
        trained = await self._ensure_trained(job)
        record = trained.record
        async with self._database.transaction() as session:
            spent = _row(job, "train", is_estimate=False, device_seconds=record.seconds, trained_tokens=record.tokens)
            await JobRepository(session).keep_cost(spent)
        return {
            "dataset_digest": record.dataset_digest,
            "steps": record.steps,
            "tokens": record.tokens,
            "seconds": record.seconds,
            "loss": record.losses[-1] if record.losses else None,
            "resumed_from": record.resumed_from,
        }

    async def _evaluate(self, job: Assignment, done: Mapping[Stage, Mapping[str, Any]]) -> dict[str, Any]:
        evaluation, digest = await self._evaluated(job, await self._ensure_trained(job))
        async with self._database.transaction() as session:
            spent = _row(job, "evaluate", is_estimate=False, device_seconds=job.seconds)
            await JobRepository(session).keep_cost(spent)
        return {"evaluation": evaluation.to_json(), "adapter_digest": digest}

    async def _publish(self, job: Assignment, done: Mapping[Stage, Mapping[str, Any]]) -> dict[str, Any]:
        """Publish the version; `live` moves to it when its gate lets it. Erased transcripts take it back."""
        from training.evaluation import UserEvaluation
        from training.publishing import publish

        trained = await self._ensure_trained(job)
        result = done[Stage.EVALUATE]
        evaluation = UserEvaluation.from_json(result["evaluation"])
        if await asyncio.to_thread(_digest, trained.adapter_directory) != result["adapter_digest"]:
            evaluation, _ = await self._evaluated(job, trained)  # trained again on another machine
        await self.require_transcripts(job)
        published = await publish(
            trained,
            evaluation,
            owner=Owner.named(tenant=job.tenant, user=job.user),
            registry=self._registry,
            adapter=job.adapter,
            base_directory=await self._base_directory(job.base),
            on_progress=job.tell,
        )
        manifest = published.manifest
        try:
            await self.require_transcripts(job)
        except TranscriptsErased:
            await self._unpublish(manifest.version_id)
            raise
        async with self._database.transaction() as session:
            await JobRepository(session).keep_trained(
                {
                    "tenant": job.tenant,
                    "user_id": job.user,
                    "adapter": job.adapter,
                    "words": done[Stage.SNAPSHOT]["words"],
                    "base": job.base,
                    "job_id": job.job_id,
                    "version_id": manifest.version_id,
                    "trained_at": manifest.lineage.trained_at or manifest.created_at,
                }
            )
        return {
            "version": manifest.version,
            "version_id": manifest.version_id,
            "live": published.live,
            "passed": published.decision.passed,
            "reasons": list(published.decision.reasons),
        }

    async def _unpublish(self, version_id: str) -> None:
        try:
            await self._registry.lifecycle.erase_version(version_id, why="its transcripts were erased", force=True)
        except VersionNotFound:
            return

    # ----- what stages need of earlier ones, made again where it is missing

    async def require_transcripts(self, job: Assignment) -> None:
        """Raise `TranscriptsErased` unless the user still has every transcript that the job is about."""
        async with self._database.reading() as session:
            if not await TranscriptStore(session).has_all(job.tenant, job.user, job.transcript_ids):
                raise TranscriptsErased

    async def _transcripts(self, job: Assignment) -> list[Transcript]:
        async with self._database.transaction() as session:
            wanted = set(job.transcript_ids)
            found = [each async for each in TranscriptStore(session).stream(job.tenant, job.user) if each.id in wanted]
        if len(found) != len(wanted):
            raise TranscriptsErased
        return found

    def _config(self, job: Assignment, base_directory: Path | None = None) -> ResolvedConfig:
        base = str(base_directory) if base_directory else job.base
        environment: dict[str, Any] = {"base": base}
        if self._settings.training_threads is not None:
            environment["threads"] = self._settings.training_threads
        resolved = resolve(TrainingRequest(), arguments=dict(job.settings), environment=environment)
        return resolved.for_user(job.tenant, job.user)

    async def _prepared(self, job: Assignment) -> Prepared:
        transcripts = await self._transcripts(job)
        config = self._config(job).dataset
        return await asyncio.to_thread(prepare, transcripts, config=config, redactor=self._redactor)

    async def _writer(self, job: Assignment) -> QuestionWriter:
        async with self._database.reading() as session:
            claimed = await JobRepository(session).claimed_batches(except_job=job.job_id)
        return make_writer(
            self._writers,
            self._config(job).dataset,
            spool=DirectorySpool(self.folder(job.job_id) / "spool"),
            redactor=None,  # `prepare` has redacted already
            key=job.job_id,
            claimed=claimed,
        )

    async def _kept_writing(self, job_id: str) -> _Writing:
        async with self._database.reading() as session:
            row = await JobRepository(session).writing(job_id)
        return _Writing(
            state=WriterState.from_json(row.state) if row and row.state else None,
            written=Written.from_json(row.written) if row and row.written else None,
        )

    async def _ensure_dataset(self, job: Assignment) -> Dataset:
        directory = self.folder(job.job_id) / "dataset"
        if directory.exists():
            try:
                return await asyncio.to_thread(Dataset.load, directory)
            except DatasetError:
                await asyncio.to_thread(shutil.rmtree, directory)
        transcripts = await self._transcripts(job)
        writing = await self._kept_writing(job.job_id)
        async with self._database.reading() as session:
            curation = await CurationRepository(session).get(tenant=job.tenant, user=job.user)
        config = self._config(job)

        def build(trainer: Trainer) -> Dataset:
            return build_dataset(
                transcripts,
                config=config.dataset,
                directory=directory,
                redactor=self._redactor,
                written=writing.written,
                curation=curation,
                scorer=lambda examples: trainer.base_losses(examples, max_length=config.training.max_length),
            )

        async with self._device:
            trainer = await self._trainer(job)
            return await asyncio.to_thread(build, trainer)

    async def _ensure_trained(self, job: Assignment) -> TrainedAdapter:
        from training.errors import AdapterUnreadable
        from training.runs import TrainedAdapter

        directory = self.folder(job.job_id) / "run"
        if directory.exists():
            try:
                return await asyncio.to_thread(TrainedAdapter.load, directory)
            except AdapterUnreadable:
                await asyncio.to_thread(shutil.rmtree, directory)
        dataset = await self._ensure_dataset(job)
        await self.require_transcripts(job)
        shown = (await self._prepared(job)).by_original if _needs_transcripts(self._config(job)) else {}
        async with self._device:
            trainer = await self._trainer(job)
            config = self._config(job, await self._base_directory(job.base))
            return await asyncio.to_thread(
                trainer.train,
                dataset,
                config,
                directory,
                lambda progress: _tell(job, progress),
                transcripts=shown,
                checkpoints=self.folder(job.job_id) / "checkpoints",
                checkpoint_seconds=self._settings.training_checkpoint_seconds,
            )

    async def _evaluated(self, job: Assignment, trained: TrainedAdapter) -> tuple[UserEvaluation, str]:
        from training.evaluation import Checks, Contestant
        from training.evaluation.leaks import probe_secrets

        dataset = await self._ensure_dataset(job)
        rivals = await self._rivals(job, trained)
        probes = []
        if self._redactor is not None:
            redactor = self._redactor
            transcripts = await self._transcripts(job)
            spans = lambda text: [(each.start, each.end) for each in redactor.find(text)]  # noqa: E731
            probes = await asyncio.to_thread(probe_secrets, transcripts, spans)
        contestant = Contestant(dataset=dataset, adapter_directory=trained.adapter_directory, probes=tuple(probes))
        maximum = trained.config.training.max_length

        def tell(done: int, total: int) -> None:
            job.check()
            job.tell(done, total)

        def evaluate(evaluator: Evaluator) -> UserEvaluation:
            report = evaluator.evaluate(
                {"user": contestant}, max_length=maximum, others=rivals, checks=Checks(), on_progress=tell
            )
            return report.users["user"]

        async with self._device:
            evaluator = await self._evaluator(job)
            found = await asyncio.to_thread(evaluate, evaluator)
        return found, await asyncio.to_thread(_digest, trained.adapter_directory)

    async def _rivals(self, job: Assignment, trained: TrainedAdapter) -> dict[str, Path]:
        """Return other users' live adapters of the same base, chosen by hash: the same ones in every attempt."""
        if not self._settings.training_rivals:
            return {}
        try:
            page = await self._registry.list_adapters(
                job.tenant, base=trained.base.id, alias=_ALIAS, suspended=False, limit=_MAX_LISTED
            )
        except RegistryUnavailable:
            raise
        except RegistryError:
            return {}  # the registry does not know this base yet: nobody has an adapter for it
        others = [
            each
            for each in page.adapters
            if each.owner.user not in (None, job.user) and each.adapter == job.adapter and _ALIAS in each.aliases
        ]
        others.sort(key=lambda each: sha256_json([job.user, each.owner.user]))
        rivals: dict[str, Path] = {}
        for each in others[: self._settings.training_rivals]:
            directory = self.folder(job.job_id) / "rivals" / each.aliases[_ALIAS]
            if not directory.exists():
                resolution = await self._registry.get_version(each.aliases[_ALIAS])
                if resolution.manifest.base.weights_sha256 != trained.base.weights_sha256:
                    continue
                await self._registry.download(resolution, directory)
            rivals[each.aliases[_ALIAS]] = directory
        return rivals

    # ----- the device

    async def _base_directory(self, base: str) -> Path:
        from training.base_models import prepare_base

        return await asyncio.to_thread(prepare_base, base, self._settings.bases_directory / Path(base).name)

    async def _trainer(self, job: Assignment) -> Trainer:
        """Return the resident trainer; another base takes the place of the one before."""
        from training.trainer import Trainer

        directory = await self._base_directory(job.base)
        loaded = self._of_base(job.base, directory)
        if loaded.trainer is None:
            trainer = await asyncio.to_thread(Trainer, directory, device=self._settings.training_device)
            loaded = self._loaded = _Loaded(
                base=job.base, directory=directory, trainer=trainer, evaluator=loaded.evaluator
            )
        assert loaded.trainer is not None
        return loaded.trainer

    async def _evaluator(self, job: Assignment) -> Evaluator:
        from training.evaluation import Evaluator

        directory = await self._base_directory(job.base)
        loaded = self._of_base(job.base, directory)
        if loaded.evaluator is None:
            evaluator = await asyncio.to_thread(Evaluator, directory, device=self._settings.training_device)
            loaded = self._loaded = _Loaded(
                base=job.base, directory=directory, trainer=loaded.trainer, evaluator=evaluator
            )
        assert loaded.evaluator is not None
        return loaded.evaluator

    def _of_base(self, base: str, directory: Path) -> _Loaded:
        if self._loaded is None or self._loaded.base != base:
            self._loaded = _Loaded(base=base, directory=directory)
        return self._loaded

    # ----- tidying up

    async def tidy(self, job_id: str, *, settings: Mapping[str, Any], tenant: str, user: str, base: str) -> bool:
        """Remove what is left of a job, here and at its question writer's; False when the latter is not done."""
        kept = await self._kept_writing(job_id)
        if kept.state is not None and not kept.state.discarded:
            job = _past(job_id, settings=settings, tenant=tenant, user=user, base=base)
            writer, state = await self._writer(job), kept.state
            try:
                for _ in range(_DISCARD_STEPS):
                    state = await writer.discard(state)
                    await self._keep_state(job, state)
                    if state.discarded or state.wait_seconds > 1.0:
                        break
                    await asyncio.sleep(state.wait_seconds)
            except WriterUnavailable:
                return False
            if not state.discarded:
                return False
        await asyncio.to_thread(shutil.rmtree, self.folder(job_id), ignore_errors=True)
        async with self._database.transaction() as session:
            await JobRepository(session).forget_writing(job_id)
        return True


@dataclass(frozen=True, kw_only=True)
class _Writing:
    state: WriterState | None
    written: Written | None


def _tell(job: Assignment, progress: TrainingProgress) -> None:
    """Note a training's step; a job that shall go on later leaves a checkpoint first."""
    job.tell(progress.step, progress.of)
    if job.stopped in {StopReason.PAUSED, StopReason.PARKED}:
        raise TrainingPaused
    job.check()


def _needs_transcripts(config: ResolvedConfig) -> bool:
    return config.training.objective == "distillation"


def _digest(adapter_directory: Path) -> str:
    files = sorted(path for path in adapter_directory.iterdir() if path.is_file())
    return sha256_json({path.name: sha256_bytes(path.read_bytes()) for path in files})


def _written_result(written: Written) -> dict[str, Any]:
    return {
        "writer": written.writer,
        "examples": len(written.examples),
        "dropped": {each.reason: each.count for each in written.dropped},
        "cost": written.cost.to_json(),
    }


def _past(job_id: str, *, settings: Mapping[str, Any], tenant: str, user: str, base: str) -> Assignment:
    return Assignment(
        job_id=job_id,
        run=0,
        tenant=tenant,
        user=user,
        adapter="",
        base=base,
        settings=settings,
        phase=Phase.PREPARE,
    )


def _cost_row(job: Assignment, kind: str, cost: Cost, *, is_estimate: bool) -> dict[str, Any]:
    return _row(
        job,
        kind,
        is_estimate=is_estimate,
        input_tokens=cost.usage.prompt_tokens,
        output_tokens=cost.usage.output_tokens,
        dollars=cost.dollars or 0.0,
    )


def _row(job: Assignment, kind: str, *, is_estimate: bool, **amounts: Any) -> dict[str, Any]:
    zero = {"input_tokens": 0, "output_tokens": 0, "trained_tokens": 0, "dollars": 0.0, "device_seconds": 0.0}
    owner = {"tenant": job.tenant, "user_id": job.user}
    return {"job_id": job.job_id, "kind": kind, "is_estimate": is_estimate, **owner, **zero, **amounts}
