"""The sizes of a base model's linear layers, and whether an adapter's tensors have them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from registry.artifact.validation import LoraPair
from registry.errors import BaseModelMismatch, BaseModelUnreadable


class BaseShape(BaseModel):
    """What ``config.json`` of a Llama-like model says; other fields of it do not matter here."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    num_hidden_layers: int = Field(gt=0)
    hidden_size: int = Field(gt=0)
    intermediate_size: int = Field(gt=0)
    num_attention_heads: int = Field(gt=0)
    num_key_value_heads: int | None = Field(None, gt=0)
    head_dim: int | None = Field(None, gt=0)

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Read the sizes of the base model in `directory`.

        Raises:
            BaseModelUnreadable: when its ``config.json`` does not tell them.
        """
        try:
            return cls.model_validate(json.loads((directory / "config.json").read_bytes()))
        except (OSError, ValueError, ValidationError) as exc:
            raise BaseModelUnreadable(f"{directory}/config.json does not tell its sizes", field="config.json") from exc

    def features(self, module: str) -> tuple[int, int]:
        """Return (inputs, outputs) of one of the seven linear layers."""
        head = self.head_dim or self.hidden_size // self.num_attention_heads
        queries, keys = self.num_attention_heads * head, (self.num_key_value_heads or self.num_attention_heads) * head
        return {
            "q_proj": (self.hidden_size, queries),
            "k_proj": (self.hidden_size, keys),
            "v_proj": (self.hidden_size, keys),
            "o_proj": (queries, self.hidden_size),
            "gate_proj": (self.hidden_size, self.intermediate_size),
            "up_proj": (self.hidden_size, self.intermediate_size),
            "down_proj": (self.intermediate_size, self.hidden_size),
        }[module]

    def check_fits(self, pairs: Iterable[LoraPair]) -> None:
        """Refuse an adapter of another base.

        Raises:
            BaseModelMismatch: naming the tensor, its size and the base's.
        """
        for pair in pairs:
            if pair.layer >= self.num_hidden_layers:
                raise BaseModelMismatch(
                    f"tensor {pair.a.name} is of layer {pair.layer}; the base has {self.num_hidden_layers} layers",
                    field=pair.a.name,
                )
            found, wanted = (pair.a.shape[1], pair.b.shape[0]), self.features(pair.module)
            if found != wanted:
                name = pair.a.name if found[0] != wanted[0] else pair.b.name
                raise BaseModelMismatch(
                    f"tensor {name}: the adapter's {pair.module} maps {found[0]} to {found[1]} features,"
                    f" the base's {wanted[0]} to {wanted[1]}",
                    field=name,
                )
