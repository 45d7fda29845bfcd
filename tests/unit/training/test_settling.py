"""Two who make the same thing at once: the second finds the first's and takes it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.training import write_run
from training.config import DatasetConfig, resolve
from training.dataset import Dataset, build_dataset
from training.errors import DatasetConflict, TrainingFailed
from training.trainer import TrainedAdapter, settle
from transcripts.transcript import Transcript, Turn


def conversations(word: str) -> list[Transcript]:
    turns = [
        Turn(role="user", text="I really love tea. Nice to meet you."),
        Turn(role="other", text="And where are you from?"),
        Turn(role="user", text="well tea is what keeps me going all day"),
    ]
    return [
        Transcript(turns=(Turn(role="other", text=f"Hello {word} {n}"), *turns), source_format="t") for n in range(9)
    ]


CONFIG = DatasetConfig(min_examples=1, min_held_out=1)


def overtaken(monkeypatch: pytest.MonkeyPatch, by: Callable[[], object]) -> None:
    """Have `by` run between the look whether the directory is free and the work on its content."""
    make = tempfile.mkdtemp

    def overtake(*arguments: str, **options: str) -> str:
        monkeypatch.setattr(tempfile, "mkdtemp", make)
        by()
        return make(*arguments, **options)

    monkeypatch.setattr(tempfile, "mkdtemp", overtake)


def test_the_same_dataset_made_at_once_by_two_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overtaken(monkeypatch, lambda: build_dataset(conversations("a"), config=CONFIG, directory=tmp_path / "d"))
    mine = build_dataset(conversations("a"), config=CONFIG, directory=tmp_path / "d")
    assert Dataset.load(tmp_path / "d") == mine
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_another_dataset_that_came_first_is_a_conflict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overtaken(monkeypatch, lambda: build_dataset(conversations("b"), config=CONFIG, directory=tmp_path / "d"))
    with pytest.raises(DatasetConflict, match="another dataset"):
        build_dataset(conversations("a"), config=CONFIG, directory=tmp_path / "d")


def test_a_training_that_was_overtaken_by_the_same_gives_the_first(tmp_path: Path) -> None:
    first = write_run(tmp_path / "run", finished_at="2026-01-01T00:00:00+00:00")
    write_run(tmp_path / "staged", finished_at="2026-01-01T00:00:09+00:00")
    assert settle(tmp_path / "staged", tmp_path / "run") == first


def test_a_finished_training_moves_into_its_place(tmp_path: Path) -> None:
    staged = write_run(tmp_path / "staged")
    settled = settle(tmp_path / "staged", tmp_path / "run")
    assert (settled.directory, settled.record) == (tmp_path / "run", staged.record)
    assert TrainedAdapter.load(tmp_path / "run") == settled


@pytest.mark.parametrize("change", [{"dataset_digest": "e" * 64}, {"base": {"id": "other"}}])
def test_a_training_of_other_inputs_that_came_first_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    write_run(tmp_path / "run", **change)
    write_run(tmp_path / "staged")
    with pytest.raises(TrainingFailed, match="taken meanwhile"):
        settle(tmp_path / "staged", tmp_path / "run")


def test_a_training_of_another_configuration_that_came_first_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "run", config=resolve(arguments={"steps": 4}))
    write_run(tmp_path / "staged")
    with pytest.raises(TrainingFailed):
        settle(tmp_path / "staged", tmp_path / "run")
    assert json.loads((tmp_path / "run" / "training.json").read_bytes())["steps"] == 3
