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


def drive(scenario: str, *, base: Path, root: Path) -> Any:
    """Run a scenario in a process of its own and return what it prints."""
    given = json.dumps({"scenario": scenario, "base": str(base), "root": str(root), "config": CONFIG})
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", DRIVER, given], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def assert_as_if_undisturbed(root: Path, undisturbed: TrainedAdapter) -> TrainedAdapter:
    run = TrainedAdapter.load(root / "run")
    for path in undisturbed.adapter_directory.iterdir():
        assert (run.adapter_directory / path.name).read_bytes() == path.read_bytes(), path.name
    assert run.record.losses == undisturbed.record.losses
    assert run.record.looks == undisturbed.record.looks
    return run


def test_killed_after_every_step_it_ends_in_the_same_bytes(
    tiny_base: Path, undisturbed: TrainedAdapter, tmp_path: Path
) -> None:
    ends = drive("killed_at_each_step", base=tiny_base, root=tmp_path)
    assert ends == [-signal.SIGKILL] * 8 + [0]
    run = assert_as_if_undisturbed(tmp_path, undisturbed)
    assert run.record.resumed_from == 8
    assert not (tmp_path / "checkpoints").exists()


def test_killed_at_any_time_it_ends_in_the_same_bytes_and_keeps_what_it_had(
    tiny_base: Path, undisturbed: TrainedAdapter, tmp_path: Path
) -> None:
    """Also while a checkpoint or the adapter is written."""
    ends = drive("killed_at_any_time", base=tiny_base, root=tmp_path)
    assert ends[-1] == 0
    assert set(ends[:-1]) == {-signal.SIGKILL}
    assert_as_if_undisturbed(tmp_path, undisturbed)
    assert not (tmp_path / "checkpoints").exists()


def test_a_full_disk_at_checkpoints_costs_the_checkpoints_only(
    tiny_base: Path, undisturbed: TrainedAdapter, tmp_path: Path
) -> None:
    found = drive("no_room_for_checkpoints", base=tiny_base, root=tmp_path)
    assert found == {"unwritten": 7, "steps": 8}
    assert_as_if_undisturbed(tmp_path, undisturbed)


def test_a_full_disk_at_the_end_is_said_and_the_checkpoint_stays(
    tiny_base: Path, undisturbed: TrainedAdapter, tmp_path: Path
) -> None:
    found = drive("no_room_for_the_adapter", base=tiny_base, root=tmp_path)
    assert found == {"error": "DiskFull", "field": "output_directory", "left": ["checkpoints"], "resumed_from": 8}
    assert_as_if_undisturbed(tmp_path, undisturbed)


def test_out_of_memory_is_said_and_the_next_training_goes_on(
    tiny_base: Path, undisturbed: TrainedAdapter, tmp_path: Path
) -> None:
    found = drive("no_memory", base=tiny_base, root=tmp_path)
    assert found["error"] == "OutOfMemory"
    assert "batch_size" in found["message"]
    assert found["left"] == ["checkpoints"]
    assert found["resumed_from"] == 2
    assert_as_if_undisturbed(tmp_path, undisturbed)
