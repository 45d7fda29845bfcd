"""Finished trainings as they lie on disk, without having been trained."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from kit.canonical import canonical_json
from training.config import CONFIG_FILE, ResolvedConfig, resolve
from training.trainer import ADAPTER_DIRECTORY, RECORD_FILE, TrainedAdapter, TrainingRecord

RECORD = TrainingRecord(
    dataset_digest="d" * 64,
    question_writer="extractive/1",
    transcript_ids=("a", "b"),
    base={"id": "base"},
    steps=3,
    examples=12,
    left_out=0,
    tokens=345,
    losses=(3.5, 3.25, 3.125),
    seconds=1.5,
    threads=2,
    device="cpu",
    packages={"torch": "2"},
    finished_at="2026-01-01T00:00:00+00:00",
)


def write_run(directory: Path, *, config: ResolvedConfig | None = None, **changes: Any) -> TrainedAdapter:
    """Write a run's directory with an empty adapter folder, and load it."""
    (directory / ADAPTER_DIRECTORY).mkdir(parents=True)
    (directory / CONFIG_FILE).write_text((config or resolve()).to_yaml())
    (directory / RECORD_FILE).write_bytes(canonical_json(asdict(replace(RECORD, **changes))))
    return TrainedAdapter.load(directory)
