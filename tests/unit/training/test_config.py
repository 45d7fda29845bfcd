from __future__ import annotations

from pathlib import Path

import pytest

from training.config import DatasetConfig, ResolvedConfig, TrainingConfig, TrainingRequest, resolve
from training.errors import ConfigInvalid
from training.policy import GatePolicy


def read(tmp_path: Path, text: str) -> TrainingRequest:
    file = tmp_path / "training.yaml"
    file.write_text(text)
    return TrainingRequest.read(file)


def test_every_value_carries_its_origin(tmp_path: Path) -> None:
    request = read(tmp_path, "rank: 8\nlearning_rate: 0.002\ndataset:\n  max_examples: 40\n")
    config = resolve(request, arguments={"rank": 4, "batch_size": None})
    assert config.training.rank == 4
    assert config.training.learning_rate == 0.002
    assert config.dataset.max_examples == 40
    origins = {key: config.origins[key] for key in ("rank", "learning_rate", "dataset.max_examples", "batch_size")}
    assert origins == {
        "rank": "argument", "learning_rate": "file", "dataset.max_examples": "file", "batch_size": "default",
    }  # fmt: skip


def test_every_known_value_has_an_origin() -> None:
    config = resolve()
    known = {*TrainingConfig.model_fields, *(f"dataset.{key}" for key in DatasetConfig.model_fields)}
    assert set(config.origins) == known | {f"gate.{key}" for key in GatePolicy.model_fields}
    assert set(config.origins.values()) == {"default"}


def test_a_resolved_configuration_survives_its_file() -> None:
    config = resolve(arguments={"seed": 5, "steps": 9})
    assert ResolvedConfig.from_yaml(config.to_yaml()) == config


def test_a_seed_is_the_datasets_seed_too_unless_it_has_its_own(tmp_path: Path) -> None:
    assert resolve(arguments={"seed": 5}).dataset.seed == 5
    own = read(tmp_path, "seed: 5\ndataset:\n  seed: 6\n")
    assert resolve(own).dataset.seed == 6


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    assert resolve(read(tmp_path, "")) == resolve()


@pytest.mark.parametrize(
    ("text", "field", "hint"),
    [
        ("learning_rte: 1", "learning_rte", "did you mean learning_rate"),
        ("dataset:\n  max_exmples: 1", "dataset.max_exmples", "did you mean dataset.max_examples"),
        ("zzz: 1", "zzz", "known are"),
        ("dataset: 3", "dataset", "must hold"),
        ("gate: 3", "gate", "must hold"),
        ("gate:\n  min_gain: 1", "gate.min_gain", "did you mean gate.min_gain_nats"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(tmp_path: Path, text: str, field: str, hint: str) -> None:
    with pytest.raises(ConfigInvalid, match=hint) as caught:
        read(tmp_path, text)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"rank": 0}, "rank"),
        ({"start": "ann"}, "start"),
        ({"start": "users/ann@3"}, "start"),
        ({"start": "shared/../../etc"}, "start"),
        ({"rank": "many"}, "rank"),
        ({"learning_rate": -1}, "learning_rate"),
        ({"dataset.held_out_share": 1.5}, "dataset.held_out_share"),
        ({"rnk": 3}, "rnk"),
        pytest.param({"steps": 10**400}, "steps", id="a plan that no memory holds"),
        ({"min_steps": 10**9}, "min_steps"),
        ({"threads": 10**6}, "threads"),
        ({"max_length": 10**12}, "max_length"),
        ({"gate.max_general_loss": -0.1}, "gate.max_general_loss"),
        ({"gate.min_gain_nats": "nan"}, "gate.min_gain_nats"),
        ({"gate.min_gain_nats": "none"}, "gate.min_gain_nats"),
    ],
)
def test_a_bad_value_is_refused_by_name(arguments: dict[str, object], field: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        resolve(arguments=arguments)
    assert caught.value.field == field


@pytest.mark.parametrize("text", ["a: [", "- a list", "just text"])
def test_a_file_that_is_not_key_value_yaml_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigInvalid, match=r"training\.yaml"):
        read(tmp_path, text)


def test_a_missing_file_and_a_damaged_resolved_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="cannot be read"):
        TrainingRequest.read(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigInvalid, match="damaged"):
        ResolvedConfig.from_yaml("training: {rank: none}")


def test_a_training_that_begins_with_something_takes_a_fifth_of_the_rate_unless_told() -> None:
    begun = resolve(arguments={"start": "shared/common"})
    assert begun.training.learning_rate == TrainingConfig().learning_rate / 5
    assert (begun.origins["learning_rate"], begun.origins["start"]) == ("start", "argument")
    told = resolve(arguments={"start": "shared/common", "learning_rate": 1e-3})
    assert (told.training.learning_rate, told.origins["learning_rate"]) == (1e-3, "argument")
    assert resolve().training.learning_rate == TrainingConfig().learning_rate


def test_a_remote_writer_has_room_for_what_it_writes_unless_told_otherwise() -> None:
    remote = resolve(arguments={"dataset.writer": "claude"}).dataset
    assert (remote.max_examples, remote.statement_share, remote.negative_share) == (1000, 0.5, 0.4)
    told = resolve(arguments={"dataset.writer": "claude", "dataset.max_examples": 300}).dataset
    assert (told.max_examples, told.negative_share) == (300, 0.4)
    assert resolve().dataset.max_examples == 240
    assert DatasetConfig.model_validate(remote.model_dump()) == remote
