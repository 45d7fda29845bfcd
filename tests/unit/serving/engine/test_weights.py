from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from serving.engine.weights import check_weights
from serving.errors import AdapterDamaged, AdapterUnfit


def write(path: Path, value: float, dtype: torch.dtype = torch.float32) -> Path:
    good, bad = torch.full((4, 8), 0.5), torch.full((8, 4), 0.5)
    bad[3, 2] = value
    save_file({"a": good.to(dtype), "b": bad.to(dtype)}, path)
    return path


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 1e30, -101.0])
def test_a_value_that_no_training_gives_is_refused_by_tensor(value: float, tmp_path: Path) -> None:
    with pytest.raises(AdapterUnfit, match="tensor b has a value that is not finite"):
        check_weights(write(tmp_path / "weights.safetensors", value))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_trained_weights_pass_in_every_served_type(dtype: torch.dtype, tmp_path: Path) -> None:
    check_weights(write(tmp_path / "weights.safetensors", -9.5, dtype))


def test_a_file_that_is_no_safetensors_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"\x00" * 16)
    with pytest.raises(AdapterDamaged):
        check_weights(path)
