"""Stages 3 and 4: datasets → trained adapters → evaluation of everything that the gate asks, on the base as served.

A run's directory is named by what determines it (dataset, training configuration, base), so a training that
finished once is found again instead of repeated.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from kit.canonical import sha256_json
from lorry.context import Context, base_directory
from lorry.erasure.files import RIVALS, clear_rivals
from lorry.stages.bills import keep_device_cost
from lorry.stages.evaluations import find_kept, inputs_of, keep
from lorry.stages.scoring import OnScore
from lorry.stages.worker import one_at_a_time, run_in_thread
from registry.manifest import DEFAULT_ADAPTER, BaseIdentity, Owner
from training.base_models import identify_base
from training.config import ResolvedConfig
from training.dataset import Dataset
from training.evaluation import Checks, Contestant, EvaluationReport, Evaluator
from training.evaluation.leaks import Probe, probe_redacted
from training.preparation import prepare
from training.rivals import fetch_rivals
from training.starts import borrowed_start, pin_start
from training.trainer import TrainedAdapter, Trainer, TrainingProgress
from training.writers.settings import WriterSettings
from transcripts.redaction import Redactor
from transcripts.store import TranscriptStore
from transcripts.transcript import Transcript

OnStep = Callable[[str, int, int, float], None]  # user, step, of, loss
_RIVALS = 3


async def train_users(
    context: Context, datasets: Mapping[str, Dataset], *, config: ResolvedConfig, on_step: OnStep
) -> dict[str, TrainedAdapter]:
    """Train every user's adapter on one resident base; finished runs of the same inputs are reused.

    What another process trains now is waited for instead of trained twice, and one that was interrupted goes on where
    it was. Each user has a seed of their own. What it takes of the device is kept, however it ends.

    Raises:
        TrainingError: for the first user whose training fails; the runs before it stay.
        RegistryError: the adapter that the trainings begin with cannot be had.
    """
    base = base_directory(context.plan)
    identity = identify_base(base)
    config = await pin_start(config, context.registry, tenant=context.settings.tenant)
    teaches = config.training.objective == "distillation"
    shown = {
        user: await _shown_to_teacher(context, user=user, dataset=dataset) if teaches else {}
        for user, dataset in datasets.items()
    }

    meters: dict[str, _Meter] = {}

    def work(checkpoint: Callable[[], None], start: Path | None) -> dict[str, TrainedAdapter]:
        trainer: Trainer | None = None
        trained: dict[str, TrainedAdapter] = {}
        for user, dataset in datasets.items():
            own = config.for_user(context.settings.tenant, user).built_with(dataset.config)
            directory = run_directory(
                context, user=user, dataset=dataset, config=own, base=identity.weights_sha256, start=start
            )
            with one_at_a_time(directory, checkpoint=checkpoint):
                if directory.exists():
                    trained[user] = TrainedAdapter.load(directory)
                    continue
                trainer = trainer or Trainer(base, device=context.settings.device)
                meter = meters[user] = _Meter()

                def report(progress: TrainingProgress, user: str = user, meter: _Meter = meter) -> None:
                    meter.read()
                    checkpoint()
                    on_step(user, progress.step, progress.of, progress.loss)

                checkpoints = directory.with_name(f".{directory.name}.checkpoints")
                trained[user] = trainer.train(
                    dataset,
                    own,
                    directory,
                    on_progress=report,
                    start=start,
                    transcripts=shown[user],
                    checkpoints=checkpoints,
                )
                meter.read(tokens=trained[user].record.tokens)
        return trained

    async with _borrowed(context, config, base=identity) as start:
        try:
            return await run_in_thread(partial(work, start=start))
        finally:
            for user, meter in list(meters.items()):  # one that was interrupted ends its step yet
                await keep_device_cost(context, user=user, kind="train", seconds=meter.seconds, tokens=meter.tokens)


@dataclass
class _Meter:
    """What one training has taken of the device, as it was last read; read in one thread, and known in another."""

    seconds: float = 0.0
    tokens: int = 0
    _began: float = field(default_factory=time.monotonic)

    def read(self, *, tokens: int = 0) -> None:
        self.seconds, self.tokens = time.monotonic() - self._began, tokens


async def evaluate_users(
    context: Context,
    trained: Mapping[str, TrainedAdapter],
    datasets: Mapping[str, Dataset],
    *,
    on_score: OnScore,
) -> EvaluationReport:
    """Score every user's held-out replies under all adapters, and check what theirs cost; keep each user's part.

    A user who is trained alone is compared with other users' live adapters of the same base. What was evaluated before,
    of the same things, is reused; what it takes of the device is kept, in equal parts of those who share it.

    Raises:
        TrainingError: an evaluation cannot be made.
        RegistryError: other users' adapters cannot be had.
    """
    base = base_directory(context.plan)
    contestants = {
        user: Contestant(
            dataset=datasets[user],
            adapter_directory=run.adapter_directory,
            probes=await _probes(context, user=user, dataset=datasets[user]),
        )
        for user, run in trained.items()
    }

    checks = Checks()
    max_length = max(run.config.training.max_length for run in trained.values())

    def work(checkpoint: Callable[[], None]) -> EvaluationReport:
        def report(done: int, total: int) -> None:
            checkpoint()
            on_score(done, total)

        evaluator = Evaluator(base, device=context.settings.device)
        return evaluator.evaluate(contestants, max_length=max_length, others=rivals, checks=checks, on_progress=report)

    # Other people's weights: under the home, where the next command and an erasure find them if this process is killed.
    await asyncio.to_thread(clear_rivals, context.home)
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(
            tempfile.TemporaryDirectory(prefix=f"{os.getpid()}-", dir=context.home.folder(RIVALS))
        )
        rivals = await _rivals(context, trained, directory=Path(folder))
        begun = {run.config.training.start: run for run in trained.values()}
        starts = {
            start: await stack.enter_async_context(_borrowed(context, run.config, base=run.base))
            for start, run in begun.items()
        }
        for user, run in trained.items():
            contestants[user] = replace(contestants[user], start=starts[run.config.training.start])
        inputs = await asyncio.to_thread(
            inputs_of,
            contestants,
            rivals=rivals,
            base_sha256=next(iter(trained.values())).base.weights_sha256,
            max_length=max_length,
            checks=checks,
            device=context.settings.device,
        )
        report = find_kept(trained, inputs, seed=checks.seed)
        if report is None:
            began = time.monotonic()
            try:
                report = await run_in_thread(work)
                keep(trained, report, inputs)
            finally:
                seconds = (time.monotonic() - began) / len(trained)
                for user in trained:
                    await keep_device_cost(context, user=user, kind="evaluate", seconds=seconds)
    return report


def _borrowed(
    context: Context, config: ResolvedConfig, *, base: BaseIdentity
) -> AbstractAsyncContextManager[Path | None]:
    """Have what a training begins with in this home while the block runs."""
    return borrowed_start(
        config.training.start,
        context.registry,
        tenant=context.settings.tenant,
        base=base,
        beside=context.home.folder("starts"),
    )


async def _probes(context: Context, *, user: str, dataset: Dataset) -> tuple[Probe, ...]:
    """Return what redaction finds in the dataset's transcripts, as far as they are still stored.

    Where redaction is switched off, it was trained on: then above all it must not come out.
    """
    redactor = Redactor(WriterSettings.read().redaction())
    used = await _used_transcripts(context, user=user, dataset=dataset)
    return tuple(await asyncio.to_thread(probe_redacted, used, redactor))


async def _shown_to_teacher(context: Context, *, user: str, dataset: Dataset) -> Mapping[str, Transcript]:
    """Return the dataset's transcripts that were not held out, redacted, by the ids that the dataset has for them."""
    used = await _used_transcripts(context, user=user, dataset=dataset)
    redactor = WriterSettings.read().redactor()
    return (await asyncio.to_thread(prepare, used, config=dataset.config, redactor=redactor)).by_original


async def _used_transcripts(context: Context, *, user: str, dataset: Dataset) -> list[Transcript]:
    """Return what the dataset was made from, as far as it is still stored."""
    async with context.database.transaction() as session:
        stored = await TranscriptStore(session).list(context.settings.tenant, user)
    wanted = set(dataset.transcript_ids)
    return [transcript for transcript in stored if transcript.id in wanted]


async def _rivals(context: Context, trained: Mapping[str, TrainedAdapter], *, directory: Path) -> dict[str, Path]:
    """Return adapters to compare with; several users who are trained together are compared with one another."""
    if len(trained) != 1:
        return {}
    ((user, run),) = trained.items()
    return await fetch_rivals(
        context.registry,
        owner=Owner.named(tenant=context.settings.tenant, user=user),
        adapter=DEFAULT_ADAPTER,
        base=run.base,
        limit=_RIVALS,
        directory=directory,
    )


def run_directory(
    context: Context, *, user: str, dataset: Dataset, config: ResolvedConfig, base: str, start: Path | None
) -> Path:
    """Return where the run of these inputs is, or would be; a start's directory is called by its version's id."""
    inputs = {"dataset": dataset.digest, "training": config.training.model_dump(mode="json"), "base": base}
    inputs |= {"start": start.name} if start else {}
    folder = context.home.user_folder("runs", tenant=context.settings.tenant, user=user)
    return folder / sha256_json(inputs)[:16]
