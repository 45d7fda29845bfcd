from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from training.base_models import DEFAULT_BASE
from training.config import resolve
from training.presets import BaseShape, learning_rate, preset

LLAMA_8B = {
    "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 14336,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
}  # fmt: skip
QWEN_HALF = {
    "model_type": "qwen2", "hidden_size": 896, "num_hidden_layers": 24, "intermediate_size": 4864,
    "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151936,
}  # fmt: skip


def base(directory: Path, config: Any) -> str:
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    return str(directory)


def test_the_parameters_of_known_models_are_estimated_within_a_tenth(tmp_path: Path) -> None:
    for config, parameters in ((LLAMA_8B, 8.0e9), (QWEN_HALF, 0.49e9)):
        shape = BaseShape.read(base(tmp_path, config))
        assert shape is not None
        assert shape.parameters == pytest.approx(parameters, rel=0.1)


def test_the_learning_rate_falls_with_the_width_of_a_llama_and_hardly_for_a_qwen() -> None:
    def rate(model_type: str, hidden_size: int) -> float:
        return learning_rate(BaseShape(model_type=model_type, hidden_size=hidden_size, parameters=1))

    assert rate("llama", 576) == 1.3e-3
    assert rate("llama", 2000) == rate("qwen3", 2000) == 5e-4
    assert rate("llama", 4096) == 2.9e-4
    assert rate("qwen2", 4096) == 4.7e-4


def test_a_larger_base_gets_larger_batches_longer_rows_and_recomputing(tmp_path: Path) -> None:
    config = resolve(environment={"base": base(tmp_path, LLAMA_8B)})
    training = config.training
    assert (training.batch_size, training.max_length, training.gradient_checkpointing) == (8, 1024, True)
    assert training.learning_rate == 2.9e-4
    assert config.origins["learning_rate"] == config.origins["batch_size"] == "base"
    assert config.origins["rank"] == "default"


def test_what_a_person_sets_counts_before_the_size(tmp_path: Path) -> None:
    config = resolve(environment={"base": base(tmp_path, LLAMA_8B)}, arguments={"batch_size": 2})
    assert config.training.batch_size == 2
    assert config.origins["batch_size"] == "argument"


def test_the_default_base_has_the_measured_defaults_by_name_and_by_directory(tmp_path: Path) -> None:
    small = {**LLAMA_8B, "hidden_size": 576, "num_hidden_layers": 30, "intermediate_size": 1536, "vocab_size": 49152}
    assert preset(DEFAULT_BASE) == preset(base(tmp_path, small)) == {}


@pytest.mark.parametrize("config", [[], {}, {"hidden_size": "wide"}, {"hidden_size": None}])
def test_a_base_that_cannot_be_read_has_the_defaults(tmp_path: Path, config: Any) -> None:
    assert preset(base(tmp_path, config)) == {}
    assert preset(str(tmp_path / "nowhere")) == {}


def test_each_user_has_a_seed_of_their_own_that_follows_from_their_name() -> None:
    config = resolve(arguments={"seed": 3})
    ada, bob = config.for_user("default", "ada"), config.for_user("default", "bob")
    assert ada.training.seed != bob.training.seed
    assert ada == config.for_user("default", "ada")
    assert ada.training.seed != config.for_user("other", "ada").training.seed
    assert ada.training.seed != resolve(arguments={"seed": 4}).for_user("default", "ada").training.seed
    assert ada.dataset == config.dataset
    assert ada.training.model_copy(update={"seed": 3}) == config.training
