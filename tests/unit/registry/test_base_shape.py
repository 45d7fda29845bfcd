from __future__ import annotations

import json
from pathlib import Path

import pytest

from registry.artifact.base_shape import check_fits, misfits
from registry.artifact.safetensors_header import Tensor
from registry.artifact.tensors import LoraPair
from registry.errors import BaseModelMismatch, BaseModelUnreadable
from registry.manifest import BaseShape

SMOL = {
    "num_hidden_layers": 30,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
}


def pair(layer: int, module: str, inputs: int, outputs: int) -> LoraPair:
    name = f"base_model.model.model.layers.{layer}.{module}"
    a = Tensor(name=f"{name}.lora_A.weight", dtype="F32", shape=(8, inputs), begin=0, end=0)
    b = Tensor(name=f"{name}.lora_B.weight", dtype="F32", shape=(outputs, 8), begin=0, end=0)
    return LoraPair(layer=layer, module=module, a=a, b=b)


def base(tmp_path: Path, **changes: object) -> BaseShape:
    (tmp_path / "config.json").write_text(json.dumps({**SMOL, "model_type": "llama", **changes}))
    return BaseShape.read(tmp_path)


def test_an_adapter_of_this_base_fits(tmp_path: Path) -> None:
    pairs = [pair(0, "q_proj", 576, 576), pair(29, "k_proj", 576, 192), pair(3, "down_proj", 1536, 576)]
    check_fits(pairs, base(tmp_path))


def test_a_head_size_of_its_own_is_respected(tmp_path: Path) -> None:
    assert base(tmp_path, head_dim=128).features("o_proj") == (9 * 128, 576)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (pair(30, "q_proj", 576, 576), "is of layer 30; the base has 30 layers"),
        (pair(0, "q_proj", 2048, 576), r"lora_A.*maps 2048 to 576 features, the base's 576 to 576"),
        (pair(0, "k_proj", 576, 576), r"lora_B.*maps 576 to 576 features, the base's 576 to 192"),
    ],
)
def test_an_adapter_of_another_base_is_refused_by_tensor(tmp_path: Path, wrong: LoraPair, reason: str) -> None:
    with pytest.raises(BaseModelMismatch, match=reason):
        check_fits([wrong], base(tmp_path))


def test_every_tensor_that_does_not_fit_is_named(tmp_path: Path) -> None:
    wrong = [pair(30, "q_proj", 576, 576), pair(1, "k_proj", 576, 576), pair(2, "v_proj", 576, 192)]
    assert [finding.code for finding in misfits(wrong, base(tmp_path))] == ["no-such-layer", "other-features"]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"hidden_size": 0}'])
def test_a_base_that_does_not_tell_its_sizes_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(BaseModelUnreadable):
        BaseShape.read(tmp_path)
