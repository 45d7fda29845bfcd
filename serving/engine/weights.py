"""Weights that would poison an engine: one adapter's NaN stays in shared cache blocks and breaks others' answers."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from registry.manifest import MAX_WEIGHT
from serving.errors import AdapterUnfit


def check_tensors(tensors: Mapping[str, torch.Tensor]) -> None:
    """Look at every value once.

    Raises:
        AdapterUnfit: naming the first tensor with a value that is not finite, or beyond `MAX_WEIGHT`.
    """
    for name in sorted(tensors):
        _check(name, tensors[name])


def is_sound(tensor: torch.Tensor) -> bool:
    """Say whether every value of a tensor that is not empty is finite and within ±`MAX_WEIGHT`."""
    low, high = (float(bound) for bound in torch.aminmax(tensor))
    return -MAX_WEIGHT <= low <= high <= MAX_WEIGHT  # false for NaN as well


def _check(name: str, tensor: torch.Tensor) -> None:
    if tensor.numel() == 0:
        raise AdapterUnfit(f"The adapter's tensor {name} is empty.")
    if not is_sound(tensor):
        raise AdapterUnfit(f"The adapter's tensor {name} has a value that is not finite, or beyond ±{MAX_WEIGHT:g}.")
