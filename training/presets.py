"""Defaults that depend on the base model's size; docs/training.md says where each comes from.

The default base has the defaults of `TrainingConfig`, which were measured; for any other, the shape in its
``config.json`` decides. What a person sets always counts instead.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from training.base_models import DEFAULT_BASE

_REFERENCE_HIDDEN = 2000
_REFERENCE_RATE = 5e-4  # ten times what all weights would be trained with
_WIDTH_EXPONENTS = {"qwen": 0.0775}  # by the beginning of the model's type
_OTHER_EXPONENT = 0.781
_DEFAULT_BASE_HIDDEN = 576
_BILLION = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class BaseShape:
    """What of a base model's configuration decides how it is trained. `parameters` is an estimate from the shapes."""

    model_type: str
    hidden_size: int
    parameters: int

    @classmethod
    def read(cls, base: str) -> Self | None:
        """Read the shape of a base model's directory; None for a known name, or where there is nothing to read."""
        try:
            value = json.loads((Path(base) / "config.json").read_bytes())
            hidden, layers = int(value["hidden_size"]), int(value["num_hidden_layers"])
            middle, vocabulary = int(value.get("intermediate_size", 4 * hidden)), int(value["vocab_size"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None  # whoever loads the base says what is wrong with it
        heads = int(value.get("num_attention_heads") or 1)
        keys = int(value.get("num_key_value_heads") or heads) / heads
        each = hidden * hidden * (2 + 2 * keys) + 3 * hidden * middle
        return cls(
            model_type=str(value.get("model_type", "")),
            hidden_size=hidden,
            parameters=round(layers * each + vocabulary * hidden),
        )


def preset(base: str) -> dict[str, Any]:
    """Return the training values that the size of `base` decides; nothing for the default base."""
    if base == DEFAULT_BASE:
        return {}
    shape = BaseShape.read(base)
    if shape is None or (shape.model_type == "llama" and shape.hidden_size == _DEFAULT_BASE_HIDDEN):
        return {}
    return {"learning_rate": learning_rate(shape), **_by_size(shape)}


def learning_rate(shape: BaseShape) -> float:
    """Return the peak learning rate of LoRA for a base of that width, rounded to two digits."""
    exponent = next(
        (power for name, power in _WIDTH_EXPONENTS.items() if shape.model_type.startswith(name)), _OTHER_EXPONENT
    )
    return float(f"{_REFERENCE_RATE * (_REFERENCE_HIDDEN / shape.hidden_size) ** exponent:.1e}")


def _by_size(shape: BaseShape) -> dict[str, Any]:
    if shape.parameters < _BILLION:
        return {}
    large = shape.parameters >= 10 * _BILLION
    return {"batch_size": 16 if large else 8, "max_length": 1024, "gradient_checkpointing": True}
