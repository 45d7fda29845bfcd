"""A training that was stopped goes on from its checkpoint and ends in the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.support.tiny_training import tiny_dataset
from training.config import ResolvedConfig, resolve
from training.errors import LossNotFinite, TrainingPaused
from training.jobs.errors import JobStopped
from training.trainer import TrainedAdapter, Trainer, TrainingJob, TrainingProgress

SHORT: dict[str, Any] = {
    "steps": 8, "batch_size": 4, "max_length": 96, "rank": 4, "threads": 1, "learning_rate": 5e-3, "replay_share": 0.25,
    "min_validation": 2, "validations": 4, "patience": 9,
}  # fmt: skip


@pytest.fixture(scope="module")
def tiny(trainer: Trainer) -> Trainer:
    """The base is of no importance here."""
    return trainer


def config(**changes: Any) -> ResolvedConfig:
    return resolve(arguments={**SHORT, **changes})


def files(run: TrainedAdapter) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.adapter_directory.iterdir()}


def pause_at(step: int) -> Callable[[TrainingProgress], None]:
    def on_progress(progress: TrainingProgress) -> None:
        if progress.step == step:
            raise TrainingPaused

    return on_progress


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"dropout": 0.2},
        {"gradient_checkpointing": True},
        {"weight_decay": 0.1, "replay_share": 0.0},
        {"validation_share": 0.0},
    ],
    ids=lambda changes: ",".join(changes) or "plain",
)
def test_paused_after_every_step_a_training_ends_in_the_same_bytes(
    tiny: Trainer, tmp_path: Path, changes: dict[str, Any]
) -> None:
    dataset, how = tiny_dataset(), config(**changes)
    whole = tiny.train(dataset, how, tmp_path / "whole")
    checkpoints = tmp_path / "checkpoints"
    for step in range(1, 9):
        with pytest.raises(TrainingPaused):
            tiny.train(dataset, how, tmp_path / "runs" / "run", pause_at(step), checkpoints=checkpoints)
        assert list((tmp_path / "runs").iterdir()) == []
        assert [path.name[:13] for path in checkpoints.iterdir()] == [f"step-{step:08d}"]
    told: list[TrainingProgress] = []
    resumed = tiny.train(dataset, how, tmp_path / "runs" / "run", told.append, checkpoints=checkpoints)
    assert told == []  # no step was left
    assert files(resumed) == files(whole)
    assert resumed.record.losses == whole.record.losses
    assert resumed.record.looks == whole.record.looks
    assert resumed.record.resumed_from == 8
    assert whole.record.resumed_from is None
    assert not checkpoints.exists()


def test_another_trainer_goes_on_where_the_first_one_stopped(tiny: Trainer, tiny_base: Path, tmp_path: Path) -> None:
    whole = tiny.train(tiny_dataset(), config(), tmp_path / "whole")
    with pytest.raises(TrainingPaused):
        tiny.train(tiny_dataset(), config(), tmp_path / "run", pause_at(3), checkpoints=tmp_path / "c")
    told: list[TrainingProgress] = []
    other = Trainer(tiny_base, device="cpu")
    resumed = other.train(tiny_dataset(), config(), tmp_path / "run", told.append, checkpoints=tmp_path / "c")
    assert [progress.step for progress in told] == [4, 5, 6, 7, 8]
    assert told[0].checkpoint_step == 3
    assert files(resumed) == files(whole)


def test_without_a_checkpoint_of_its_own_inputs_a_training_begins_anew(tiny: Trainer, tmp_path: Path) -> None:
    with pytest.raises(TrainingPaused):
        tiny.train(tiny_dataset(), config(), tmp_path / "run", pause_at(3), checkpoints=tmp_path / "c")
    for dataset, how in ((tiny_dataset("bob"), config()), (tiny_dataset(), config(seed=5))):
        told: list[TrainingProgress] = []
        with pytest.raises(TrainingPaused):
            tiny.train(
                dataset,
                how,
                tmp_path / "run",
                lambda progress, told=told: (told.append(progress), pause_at(1)(progress)),  # type: ignore[misc]
                checkpoints=tmp_path / "c",
            )
        assert [progress.step for progress in told] == [1]


def test_a_damaged_checkpoint_costs_time_and_nothing_else(tiny: Trainer, tmp_path: Path) -> None:
    whole = tiny.train(tiny_dataset(), config(), tmp_path / "whole")
    with pytest.raises(TrainingPaused):
        tiny.train(tiny_dataset(), config(), tmp_path / "run", pause_at(3), checkpoints=tmp_path / "c")
    (path,) = (tmp_path / "c").iterdir()
    path.write_bytes(path.read_bytes()[:-100])
    run = tiny.train(tiny_dataset(), config(), tmp_path / "run", checkpoints=tmp_path / "c")
    assert run.record.resumed_from is None
    assert files(run) == files(whole)


def test_what_progress_raises_ends_the_training_and_the_checkpoint_stays(tiny: Trainer, tmp_path: Path) -> None:
    class Cancelled(Exception):
        pass

    def cancel(progress: TrainingProgress) -> None:
        if progress.step == 4:
            raise Cancelled

    with pytest.raises(Cancelled):
        tiny.train(tiny_dataset(), config(), tmp_path / "run", cancel, checkpoints=tmp_path / "c", checkpoint_seconds=0)
    assert [path.name[:13] for path in (tmp_path / "c").iterdir()] == ["step-00000004"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c"]


def test_the_weights_are_those_of_the_best_look(tiny: Trainer, tmp_path: Path) -> None:
    """A rate that rises far too high makes later looks worse."""
    how = config(steps=40, learning_rate=0.3, warmup_share=0.3, validations=20, patience=3)
    seen: dict[int, dict[str, torch.Tensor]] = {}

    def keep(progress: TrainingProgress) -> None:
        for path in (tmp_path / "c").glob("step-*"):
            seen.setdefault(int(path.name[5:13]), load_file(path))

    run = tiny.train(tiny_dataset(), how, tmp_path / "run", keep, checkpoints=tmp_path / "c", checkpoint_seconds=0)
    record = run.record
    assert record.steps < record.planned_steps == 40
    assert record.best_step == min(record.looks, key=lambda look: look[1])[0] < record.steps
    assert record.watched >= 2
    weights = load_file(run.adapter_directory / "adapter_model.safetensors")
    best = {name: tensor for name, tensor in seen[record.best_step].items() if name.startswith("weight.")}
    assert len(best) == len(weights)
    for name, tensor in best.items():
        assert torch.equal(weights[name.removeprefix("weight.").replace(".default.", ".")], tensor)


def test_where_there_is_no_time_to_look_twice_everything_is_trained_on(tiny: Trainer, tmp_path: Path) -> None:
    brief = tiny.train(tiny_dataset(), config(steps=2), tmp_path / "brief").record
    longer = tiny.train(tiny_dataset(), config(steps=8), tmp_path / "longer").record
    assert (brief.watched, brief.examples, brief.looks) == (0, 36, ())
    assert longer.watched > 0
    assert len(longer.looks) == 2


def test_values_of_four_bits_train_like_the_bits(tiny: Trainer, tiny_base: Path, tmp_path: Path) -> None:
    packed = Trainer(tiny_base, device="cpu", expanded=False)
    kinds = [{type(module).__name__ for module in each._base.modules()} for each in (packed, tiny)]
    assert "Linear4bit" in kinds[0]
    assert "Linear4bit" not in kinds[1]
    runs = [each.train(tiny_dataset(), config(), tmp_path / name) for name, each in (("4", packed), ("32", tiny))]
    assert files(runs[0]) == files(runs[1])


def test_one_user_who_diverges_fails_alone(tiny: Trainer, tmp_path: Path) -> None:
    def job(name: str, **changes: Any) -> TrainingJob:
        return TrainingJob(dataset=tiny_dataset(name), config=config(**changes), output_directory=tmp_path / name)

    alone = tiny.train(tiny_dataset("cleo"), config(), tmp_path / "alone")
    told: set[str] = set()
    outcomes = list(
        tiny.train_all(
            [job("ada"), job("bob", alpha=1e38), job("cleo")],
            lambda job, progress: told.add(job.output_directory.name),
        )
    )
    assert [outcome.trained is not None for outcome in outcomes] == [True, False, True]
    assert isinstance(outcomes[1].error, LossNotFinite)
    assert "step" in outcomes[1].error.message
    assert outcomes[2].trained is not None
    assert files(outcomes[2].trained) == files(alone)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ada", "alone", "cleo"]
    assert told == {"ada", "cleo"}


def test_the_base_says_how_well_it_knows_each_answer_already(tiny: Trainer) -> None:
    examples = list(tiny_dataset().train[:5])
    together = tiny.base_losses(examples, max_length=96)
    assert together == pytest.approx([tiny.base_losses([each], max_length=96)[0] for each in examples], abs=1e-4)
    assert all(loss is not None and 5 < loss < 15 for loss in together)
    assert tiny.base_losses(examples, max_length=32) == [None] * 5
    assert tiny.base_losses([], max_length=96) == []


def test_scoring_tells_how_far_it_is_and_ends_where_its_listener_does(tiny: Trainer) -> None:
    """Somebody may have thousands of answers; a job that is canceled meanwhile does not score them all first."""
    examples = [example for example in tiny_dataset().train for _ in range(40)]
    told: list[tuple[int, int]] = []
    tiny.base_losses(examples, max_length=96, on_progress=lambda done, total: told.append((done, total)))
    assert len(told) > 2
    assert told == sorted(told)
    assert told[0] == (0, len(examples))
    assert told[-1] == (len(examples), len(examples))

    def leave(done: int, total: int) -> None:
        told.append((done, total))
        if done:
            raise JobStopped("canceled")

    told.clear()
    with pytest.raises(JobStopped):
        tiny.base_losses(examples, max_length=96, on_progress=leave)
    assert len(told) == 2
    assert tiny.base_losses(examples[:1], max_length=96)[0] is not None, "and the next one is scored as ever"
