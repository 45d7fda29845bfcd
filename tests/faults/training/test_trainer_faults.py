"""Trainings that are killed, find no room on the disk, or get no memory: they go on and end in the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.tiny_base import write_tiny_base
from tests.support.tiny_training import tiny_dataset
from training.config import resolve
from training.trainer import TrainedAdapter, Trainer

pytestmark = pytest.mark.faults

ROOT = Path(__file__).resolve().parents[3]
DRIVER = "tests.support.training_driver"
CONFIG: dict[str, Any] = {
    "steps": 8, "batch_size": 4, "max_length": 96, "rank": 4, "threads": 1, "dropout": 0.1, "replay_share": 0.25,
    "min_validation": 2, "validations": 4, "patience": 9,
}  # fmt: skip


@pytest.fixture(scope="module")
def tiny_base(base_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_base(tmp_path_factory.mktemp("tiny") / "base", tokenizer_from=base_directory)


@pytest.fixture(scope="module")
def undisturbed(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedAdapter:
    """The same training, left alone."""
    where = tmp_path_factory.mktemp("undisturbed") / "run"
    return Trainer(tiny_base, device="cpu").train(tiny_dataset(), resolve(arguments=CONFIG), where)


@pytest.fixture(scope="module")
def scenarios(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each scenario of the driver, all run in one process and its children."""
    root = tmp_path_factory.mktemp("scenarios")
    given = json.dumps({"base": str(tiny_base), "root": str(root), "config": CONFIG})
    at_once = {"MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_MMAP_THRESHOLD_": "4096"}  # what is freed is the system's again
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **at_once}
    command = [sys.executable, "-m", DRIVER, given]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return root


def found(root: Path) -> Any:
    return json.loads((root / "found.json").read_text())


def assert_as_if_undisturbed(root: Path, undisturbed: TrainedAdapter) -> TrainedAdapter:
    run = TrainedAdapter.load(root / "run")
    for path in undisturbed.adapter_directory.iterdir():
        assert (run.adapter_directory / path.name).read_bytes() == path.read_bytes(), path.name
    assert run.record.losses == undisturbed.record.losses
    assert run.record.looks == undisturbed.record.looks
    return run


def test_killed_after_every_step_it_ends_in_the_same_bytes(scenarios: Path, undisturbed: TrainedAdapter) -> None:
    root = scenarios / "killed_at_each_step"
    ends = found(root)
    assert ends == [-signal.SIGKILL] * 8 + [0]
    run = assert_as_if_undisturbed(root, undisturbed)
    assert run.record.resumed_from == 8
    assert not (root / "checkpoints").exists()


def test_killed_at_any_time_it_ends_in_the_same_bytes_and_keeps_what_it_had(
    scenarios: Path, undisturbed: TrainedAdapter
) -> None:
    """Also while a checkpoint or the adapter is written."""
    root = scenarios / "killed_at_any_time"
    ends = found(root)
    assert ends[-1] == 0
    assert set(ends[:-1]) == {-signal.SIGKILL}
    assert_as_if_undisturbed(root, undisturbed)
    assert not (root / "checkpoints").exists()


def test_a_full_disk_at_checkpoints_costs_the_checkpoints_only(scenarios: Path, undisturbed: TrainedAdapter) -> None:
    root = scenarios / "no_room_for_checkpoints"
    assert found(root) == {"unwritten": 8, "steps": 8}
    assert_as_if_undisturbed(root, undisturbed)


def test_a_full_disk_at_the_end_is_said_and_the_checkpoint_stays(scenarios: Path, undisturbed: TrainedAdapter) -> None:
    root = scenarios / "no_room_for_the_adapter"
    assert found(root) == {"error": "DiskFull", "field": "output_directory", "left": ["checkpoints"], "resumed_from": 8}
    assert_as_if_undisturbed(root, undisturbed)


def test_out_of_memory_is_said_and_the_next_training_goes_on(scenarios: Path, undisturbed: TrainedAdapter) -> None:
    root = scenarios / "no_memory"
    result = found(root)
    assert result["error"] == "OutOfMemory"
    assert "batch_size" in result["message"]
    assert result["left"] == ["checkpoints"]
    assert result["resumed_from"] in range(2, 9), "the last step may still find what the one before it has freed"
    assert_as_if_undisturbed(root, undisturbed)
