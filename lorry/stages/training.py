"""Stages 3 and 4: datasets → trained adapters → evaluation on the base as served.

A run's directory is named by what determines it (dataset, training configuration, base), so a training that
finished once is found again instead of repeated.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from kit.canonical import sha256_json
from lorry.context import Context, base_directory
from lorry.stages.worker import one_at_a_time, run_in_thread
from training.base_models import identify_base
from training.config import ResolvedConfig
from training.dataset import Dataset
from training.evaluation import Contestant, EvaluationReport, Evaluator
from training.trainer import TrainedAdapter, Trainer, TrainingProgress

OnStep = Callable[[str, int, int, float], None]  # user, step, of, loss
OnScore = Callable[[int, int], None]
_EVALUATION = "evaluation.json"


async def train_users(
    context: Context, datasets: Mapping[str, Dataset], *, config: ResolvedConfig, on_step: OnStep
) -> dict[str, TrainedAdapter]:
    """Train every user's adapter on one resident base; finished runs of the same inputs are reused.

    What another process trains now is waited for instead of trained twice, and one that was interrupted goes on where
    it was. Each user has a seed of their own.

    Raises:
        TrainingError: for the first user whose training fails; the runs before it stay.
    """
    base = base_directory(context.plan)
    identity = identify_base(base)

    def work(checkpoint: Callable[[], None]) -> dict[str, TrainedAdapter]:
        trainer: Trainer | None = None
        trained: dict[str, TrainedAdapter] = {}
        for user, dataset in datasets.items():
            own = config.for_user(context.settings.tenant, user)
            directory = run_directory(context, user=user, dataset=dataset, config=own, base=identity.weights_sha256)
            with one_at_a_time(directory, checkpoint=checkpoint):
                if directory.exists():
                    trained[user] = TrainedAdapter.load(directory)
                    continue
                trainer = trainer or Trainer(base, device=context.settings.device)

                def report(progress: TrainingProgress, user: str = user) -> None:
                    checkpoint()
                    on_step(user, progress.step, progress.of, progress.loss)

                checkpoints = directory.with_name(f".{directory.name}.checkpoints")
                trained[user] = trainer.train(dataset, own, directory, on_progress=report, checkpoints=checkpoints)
        return trained

    return await run_in_thread(work)


async def evaluate_users(
    context: Context,
    trained: Mapping[str, TrainedAdapter],
    datasets: Mapping[str, Dataset],
    *,
    on_score: OnScore,
) -> EvaluationReport:
    """Score every user's held-out replies under the base, their adapter and the others'; keep each user's part."""
    base = base_directory(context.plan)
    contestants = {
        user: Contestant(dataset=datasets[user], adapter_directory=run.adapter_directory)
        for user, run in trained.items()
    }

    def work(checkpoint: Callable[[], None]) -> EvaluationReport:
        def report(done: int, total: int) -> None:
            checkpoint()
            on_score(done, total)

        evaluator = Evaluator(base, device=context.settings.device)
        max_length = max(run.config.training.max_length for run in trained.values())
        return evaluator.evaluate(contestants, max_length=max_length, on_progress=report)

    report = await run_in_thread(work)
    for user, evaluation in report.users.items():
        (trained[user].directory / _EVALUATION).write_text(json.dumps(evaluation.to_json(), indent=2))
    return report


def run_directory(context: Context, *, user: str, dataset: Dataset, config: ResolvedConfig, base: str) -> Path:
    """Return where the run of these inputs is, or would be."""
    inputs = {"dataset": dataset.digest, "training": config.training.model_dump(mode="json"), "base": base}
    folder = context.home.user_folder("runs", tenant=context.settings.tenant, user=user)
    return folder / sha256_json(inputs)[:16]
