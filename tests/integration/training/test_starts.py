"""A training that begins with an adapter which the tenant's users share, and what the evaluation makes of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.tiny_training import tiny_dataset
from training.config import ResolvedConfig, resolve
from training.dataset import Dataset
from training.errors import AdapterUnreadable, ConfigInvalid, TrainingError, TrainingPaused
from training.evaluation import Contestant, Evaluator
from training.trainer import TrainedAdapter, Trainer, TrainingProgress

START = "shared/common@1"
SHORT: dict[str, Any] = {
    "start": START, "steps": 4, "batch_size": 4, "max_length": 96, "rank": 8, "threads": 1, "validation_share": 0.0,
}  # fmt: skip


def config(**changes: Any) -> ResolvedConfig:
    return resolve(arguments={**SHORT, **changes})


def weights(adapter: Path) -> dict[str, torch.Tensor]:
    return load_file(adapter / "adapter_model.safetensors")


def files(run: TrainedAdapter) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.adapter_directory.iterdir()}


def test_a_training_goes_on_from_the_weights_of_its_start(
    trainer: Trainer, trained: dict[str, TrainedAdapter], tmp_path: Path
) -> None:
    """At a rate of nearly nothing it stays there, and its record says what it began with."""
    start = trained["ada"].adapter_directory
    run = trainer.train(tiny_dataset(), config(learning_rate=1e-12), tmp_path / "run", start=start)
    begun, ended = weights(start), weights(run.adapter_directory)
    assert set(begun) == set(ended)
    assert all(torch.allclose(begun[name], ended[name], atol=1e-9) for name in begun)
    other = trainer.train(tiny_dataset(), config(), tmp_path / "b", start=trained["bob"].adapter_directory)
    assert run.record.start_sha256 not in {None, other.record.start_sha256}
    assert run.record.losses[0] != other.record.losses[0]


def test_paused_it_ends_in_the_same_bytes_and_never_goes_on_from_another_start(
    trainer: Trainer, trained: dict[str, TrainedAdapter], tmp_path: Path
) -> None:
    start, other = trained["ada"].adapter_directory, trained["bob"].adapter_directory

    def pause(progress: TrainingProgress) -> None:
        if progress.step == 2:
            raise TrainingPaused

    whole = trainer.train(tiny_dataset(), config(), tmp_path / "whole", start=start)
    kept = {"checkpoints": tmp_path / "checkpoints"}
    with pytest.raises(TrainingPaused):
        trainer.train(tiny_dataset(), config(), tmp_path / "run", pause, start=start, **kept)
    copy = {"checkpoints": shutil.copytree(tmp_path / "checkpoints", tmp_path / "copy")}
    resumed = trainer.train(tiny_dataset(), config(), tmp_path / "run", start=start, **kept)
    assert resumed.record.resumed_from == 2
    assert files(resumed) == files(whole)
    moved = trainer.train(tiny_dataset(), config(), tmp_path / "moved", start=other, **copy)
    assert moved.record.resumed_from is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"rank": 4}, "has r 8, and the training asks for 4"),
        ({"alpha": 8.0}, "has lora_alpha"),
        ({"start": None}, "the configuration names None"),
    ],
    ids=["rank", "alpha", "not asked for"],
)
def test_a_start_that_the_configuration_does_not_fit_is_refused(
    trainer: Trainer, trained: dict[str, TrainedAdapter], tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigInvalid, match=reason) as caught:
        trainer.train(tiny_dataset(), config(**changes), tmp_path / "run", start=trained["ada"].adapter_directory)
    assert caught.value.field == "start"


def test_a_start_that_is_asked_for_and_not_given_is_not_passed_over(trainer: Trainer, tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="names shared/common@1, and None is given"):
        trainer.train(tiny_dataset(), config(), tmp_path / "run")


def _no_weights(start: Path) -> None:
    (start / "adapter_model.safetensors").unlink()


def _half_the_weights(start: Path) -> None:
    whole = (start / "adapter_model.safetensors").read_bytes()
    (start / "adapter_model.safetensors").write_bytes(whole[: len(whole) // 2])


def _no_config(start: Path) -> None:
    (start / "adapter_config.json").unlink()


def _a_layer_less(start: Path) -> None:
    kept = weights(start)
    kept.pop(sorted(kept)[0])
    save_file(kept, start / "adapter_model.safetensors")


def _another_scale(start: Path) -> None:
    said = json.loads((start / "adapter_config.json").read_text())
    (start / "adapter_config.json").write_text(json.dumps({**said, "use_rslora": True}))


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (_no_weights, AdapterUnreadable),
        (_half_the_weights, AdapterUnreadable),
        (_no_config, AdapterUnreadable),
        (_a_layer_less, ConfigInvalid),
        (_another_scale, ConfigInvalid),
    ],
)
def test_a_damaged_start_is_refused_and_the_base_stays_as_it_was(
    trainer: Trainer, trained: dict[str, TrainedAdapter], tmp_path: Path, damage: Any, error: type[TrainingError]
) -> None:
    before = trainer.train(tiny_dataset(), config(start=None), tmp_path / "before")
    start = tmp_path / "start"
    start.mkdir()
    for path in trained["ada"].adapter_directory.iterdir():
        (start / path.name).write_bytes(path.read_bytes())
    damage(start)
    with pytest.raises(error) as caught:
        trainer.train(tiny_dataset(), config(), tmp_path / "run", start=start)
    assert caught.value.field == "start"
    assert not (tmp_path / "run").exists()
    after = trainer.train(tiny_dataset(), config(start=None), tmp_path / "after")
    assert files(after) == files(before)


def test_an_evaluation_says_what_the_user_s_own_replies_saved_over_the_start(
    evaluator: Evaluator, trained: dict[str, TrainedAdapter], ada: Dataset
) -> None:
    """Scored as a stranger's adapter is, and not among those who could be mistaken for the user."""
    own, start = trained["ada"].adapter_directory, trained["bob"].adapter_directory
    told: list[tuple[int, int]] = []
    begun = evaluator.evaluate(
        {"ada": Contestant(dataset=ada, adapter_directory=own, start=start)},
        max_length=96,
        on_progress=lambda done, of: told.append((done, of)),
    ).users["ada"]
    compared = evaluator.evaluate(
        {"ada": Contestant(dataset=ada, adapter_directory=own)}, max_length=96, others={"bob": start}
    ).users["ada"]
    assert begun.start_loss == compared.other_losses["bob"]
    assert begun.other_losses == {}
    assert compared.start_loss is None
    assert begun.start_gain == pytest.approx(compared.other_losses["bob"] - compared.own_loss)
    assert begun.start_gain_interval is not None
    assert begun.start_gain_interval.low <= begun.start_gain <= begun.start_gain_interval.high
    assert told[-1] == (3, 3)
