"""A finished training as it lies on disk: the adapter, the resolved configuration, the record of what happened."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.manifest import BaseIdentity
from training.config import CONFIG_FILE, ResolvedConfig
from training.errors import AdapterUnreadable, TrainingFailed

ADAPTER_DIRECTORY = "adapter"
RECORD_FILE = "training.json"


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """What happened in one training: counts, losses in nats per completion token, seconds of all attempts' wall clock.

    `steps` are those taken, `planned_steps` those there would have been without an early stop; the adapter has the
    weights after `best_step`. `watched` counts the replies that were not trained on, `looks` are (step, their loss).
    `start_sha256` is the digest of the weights that it began with, None where it began with nothing.
    `examples` are the user's, `replayed` how many times a general one was shown. `finished_at` is UTC in ISO 8601.
    """

    dataset_digest: str
    question_writer: str
    transcript_ids: tuple[str, ...]
    base: dict[str, Any]
    steps: int
    examples: int
    left_out: int
    tokens: int
    losses: tuple[float, ...]
    seconds: float
    threads: int
    device: str
    packages: dict[str, str]
    finished_at: str
    planned_steps: int = 0
    best_step: int = 0
    watched: int = 0
    looks: tuple[tuple[int, float], ...] = ()
    replayed: int = 0
    resumed_from: int | None = None
    unwritten_checkpoints: int = 0
    start_sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class TrainedAdapter:
    """One run's directory: ``adapter/`` (what is published), the resolved configuration and the record."""

    directory: Path
    config: ResolvedConfig
    record: TrainingRecord

    @property
    def adapter_directory(self) -> Path:
        """The two files that are published, and nothing else."""
        return self.directory / ADAPTER_DIRECTORY

    @property
    def base(self) -> BaseIdentity:
        """The base model that it was trained for."""
        return BaseIdentity.model_validate(self.record.base)

    @classmethod
    def load(cls, directory: Path) -> TrainedAdapter:
        """Read a run's directory.

        Raises:
            AdapterUnreadable: when it is not one.
        """
        try:
            config = ResolvedConfig.from_yaml((directory / CONFIG_FILE).read_text(encoding="utf-8"))
            value = json.loads((directory / RECORD_FILE).read_bytes())
            value |= {key: tuple(value[key]) for key in ("losses", "transcript_ids")}
            value["looks"] = tuple((step, loss) for step, loss in value.get("looks", ()))
            record = TrainingRecord(**value)
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise AdapterUnreadable(f"{directory} is not a finished training: {exc}", field=str(directory)) from exc
        return cls(directory=directory, config=config, record=record)


def settle(staging: Path, directory: Path) -> TrainedAdapter:
    """Rename a finished run into its place and return it, or the run of the same inputs that came there first.

    Raises:
        TrainingFailed: a run of other inputs came there first.
    """
    try:
        staging.rename(directory)
        return TrainedAdapter.load(directory)
    except OSError as exc:
        if not directory.exists():
            raise
        ours, first = TrainedAdapter.load(staging), TrainedAdapter.load(directory)
        if _inputs(ours) != _inputs(first):
            raise TrainingFailed(f"{directory} was taken meanwhile: name another", field="output_directory") from exc
        return first


def _inputs(run: TrainedAdapter) -> tuple[object, ...]:
    return run.config.training, run.record.dataset_digest, run.record.base, run.record.start_sha256
