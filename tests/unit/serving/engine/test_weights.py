from __future__ import annotations

import pytest
import torch

from serving.engine.weights import check_tensors
from serving.errors import AdapterUnfit


def tensors(value: float, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    good, bad = torch.full((4, 8), 0.5), torch.full((8, 4), 0.5)
    bad[3, 2] = value
    return {"a": good.to(dtype), "b": bad.to(dtype)}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 1e30, -101.0])
def test_a_value_that_no_training_gives_is_refused_by_tensor(value: float) -> None:
    with pytest.raises(AdapterUnfit, match="tensor b has a value that is not finite"):
        check_tensors(tensors(value))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_trained_weights_pass_in_every_served_type(dtype: torch.dtype) -> None:
    check_tensors(tensors(-9.5, dtype))


def test_a_tensor_without_values_is_refused_by_name() -> None:
    with pytest.raises(AdapterUnfit, match="tensor c is empty"):
        check_tensors({"c": torch.empty(0, 8)})
