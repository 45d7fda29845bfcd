"""The CPU engine's LoRA product, computed adapter by adapter.

vLLM's own copies the weights of a token's slot for every token (a gather), and multiplies each token with its copy:
sixteen requests of one adapter copy its weights sixteen times, in every layer of every step. And it marks a token of
the base model by slot −1, which that gather takes, until 0.32, for the last slot: such tokens get the delta of
somebody's adapter (vllm-project/vllm#48421). Here a step's rows are grouped by slot, once for all layers; a slot's
product is two matrix products with its weights where they lie, for its own rows only. Rows without a slot are not
touched at all, and nothing is computed for parts of a layer that an adapter lacks, nor for ranks between its own and
the largest served.

`CorrectedGather` is vLLM's own product with the base's tokens left alone: what there is to compare with.

Private seam, CPU only: the platform's choice of wrapper class, and the class `PunicaWrapperCPU`. The contract tests in
``tests/contract`` fail when either is not what this file was written for.

Axes: x (tokens, features in); A (slots, 1, rank, features in); B (slots, 1, features out, rank).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import torch
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.platforms import current_platform

from serving.engine.worker.cpu_groups import NO_SLOT, add_product, expand, group, matrix, shrink

CpuProduct: TypeAlias = Literal["grouped", "stock"]
Stacked: TypeAlias = tuple[torch.Tensor, ...]
Part: TypeAlias = tuple[int, torch.Tensor, torch.Tensor]
"""A part of a layer that an adapter has: its number, and views of A.T and B.T at the adapter's own rank."""
Ranks: TypeAlias = Mapping[int, Mapping[int, int]]
"""What an adapter has: the id() of a layer's stacked A → the number of a part → its rank."""


@dataclass(eq=False)
class _Layer:
    """The stacked weights of a layer, kept so that their id() stays theirs; and views of them, slot by slot."""

    a: Stacked
    b: Stacked
    parts: dict[int, list[Part]] = field(default_factory=dict)


class GroupedProduct(PunicaWrapperCPU):  # type: ignore[misc]  # vLLM is not typed
    """Computes each slot's product for the rows of that slot, and nothing for the rest."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._tokens = self._samples = group(())
        self._layers: dict[int, _Layer] = {}
        self._ranks: dict[int, Ranks] = {}

    def update_metadata(self, *args: Any, **kwargs: Any) -> None:
        """Group the step's tokens by slot, once for all layers."""
        super().update_metadata(*args, **kwargs)
        self._tokens = group(self.token_lora_indices.tolist())
        self._samples = group(self.sampler_indices.tolist())

    def learn_slot(self, slot: int, ranks: Ranks | None) -> None:
        """Take note of what is in `slot` from now on; None = anything, so that all of it is computed."""
        self._ranks.pop(slot, None)
        if ranks is not None:
            self._ranks[slot] = ranks
        for layer in self._layers.values():
            layer.parts.pop(slot, None)

    def add_lora_linear(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: Stacked,
        lora_b_stacked: Stacked,
        scale: float,
        output_slices: tuple[int, ...],
        *,
        buffer: Stacked | None = None,
        **kwargs: Any,
    ) -> None:
        """Add the product to the output `y` of a layer whose parts lie side by side, `output_slices` wide."""
        groups = self._tokens
        if not groups:
            return
        if buffer is not None:
            self.add_shrink(buffer, x, lora_a_stacked, scale)
            self.add_expand(y, buffer, lora_b_stacked, output_slices, add_inputs=True)
            return
        layer = self._layer(lora_a_stacked, lora_b_stacked)
        gathered = groups.gather(y)
        for slot, y_rows, x_rows in groups.pairs(gathered, groups.gather(x)):
            parts = layer.parts.get(slot)
            if parts is None:
                parts = layer.parts[slot] = self._parts(layer, slot)
            columns = (y_rows,) if len(output_slices) == 1 else y_rows.split(output_slices, 1)
            for number, a, b in parts:
                add_product(columns[number], x_rows, a, b, scale=scale)
        groups.put_back(y, gathered)

    def add_lora_embedding(
        self, y: torch.Tensor, x: torch.Tensor, lora_b_stacked: torch.Tensor, add_inputs: bool = True, **kwargs: Any
    ) -> None:
        """Add B's product to the embeddings `y` of the tokens that have an adapter."""
        expand(y, x, lora_b_stacked, self._tokens, add_inputs=add_inputs)

    def add_lora_logits(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: torch.Tensor,
        lora_b_stacked: torch.Tensor,
        scale: float,
        *,
        buffer: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> None:
        """Add the product to the logits `y` of the requests that have an adapter; one row a request."""
        y, x = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
        inner = _inner(x, lora_b_stacked) if buffer is None else buffer
        shrink(inner, x, lora_a_stacked, self._samples, scale=scale)
        expand(y, inner, lora_b_stacked, self._samples, add_inputs=True)

    def _apply_shrink(self, y: torch.Tensor, x: torch.Tensor, w_t_all: torch.Tensor, scale: float) -> None:
        shrink(y.view(-1, y.shape[-1]), x, w_t_all, self._tokens, scale=scale)

    def _apply_expand(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        w_t_all: torch.Tensor,
        y_offset: int,
        y_slice_size: int,
        add_inputs: bool = True,
    ) -> None:
        expand(y[:, y_offset : y_offset + y_slice_size], x, w_t_all, self._tokens, add_inputs=add_inputs)

    def _layer(self, a: Stacked, b: Stacked) -> _Layer:
        layer = self._layers.get(id(a))
        if layer is None:
            layer = self._layers[id(a)] = _Layer(a, b)
        return layer

    def _parts(self, layer: _Layer, slot: int) -> list[Part]:
        ranks = self._ranks.get(slot)
        if ranks is None:
            own: Mapping[int, int] = {number: a.shape[-2] for number, a in enumerate(layer.a)}
        else:
            own = ranks.get(id(layer.a), {})
        return [
            (number, matrix(layer.a[number], slot)[:rank].t(), matrix(layer.b[number], slot)[:, :rank].t())
            for number, rank in own.items()
        ]


class CorrectedGather(PunicaWrapperCPU):  # type: ignore[misc]  # vLLM is not typed
    """vLLM's own product, in which tokens without an adapter get no delta: what it makes of them is zeroed between."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._base_tokens = self._base_samples = torch.empty(0, dtype=torch.long)

    def update_metadata(self, *args: Any, **kwargs: Any) -> None:
        """Find the step's tokens without an adapter."""
        super().update_metadata(*args, **kwargs)
        self._base_tokens = (self.token_lora_indices == NO_SLOT).nonzero().squeeze(1)
        self._base_samples = (self.sampler_indices == NO_SLOT).nonzero().squeeze(1)

    def add_lora_embedding(
        self, y: torch.Tensor, x: torch.Tensor, lora_b_stacked: torch.Tensor, add_inputs: bool = True, **kwargs: Any
    ) -> None:
        """Add B's product to the embeddings `y` of the tokens that have an adapter."""
        x = x.index_fill(0, self._base_tokens, 0)
        super().add_lora_embedding(y, x, lora_b_stacked, add_inputs=add_inputs, **kwargs)

    def add_lora_logits(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: torch.Tensor,
        lora_b_stacked: torch.Tensor,
        scale: float,
        *,
        buffer: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> None:
        """Add the product to the logits `y` of the requests that have an adapter; one row a request."""
        x = x.view(-1, x.shape[-1]).index_fill(0, self._base_samples, 0)
        super().add_lora_logits(y, x, lora_a_stacked, lora_b_stacked, scale, buffer=buffer, **kwargs)

    def _apply_shrink(self, y: torch.Tensor, x: torch.Tensor, w_t_all: torch.Tensor, scale: float) -> None:
        super()._apply_shrink(y, x, w_t_all, scale)
        if len(self._base_tokens):
            y.view(-1, y.shape[-1]).index_fill_(0, self._base_tokens, 0)


_PRODUCTS: dict[CpuProduct, type[PunicaWrapperCPU]] = {"grouped": GroupedProduct, "stock": CorrectedGather}


def use_product(product: CpuProduct) -> None:
    """Make vLLM's CPU platform build our wrapper; calling it again changes nothing."""
    wrapper = _PRODUCTS[product]
    name = f"{wrapper.__module__}.{wrapper.__qualname__}"
    type(current_platform).get_punica_wrapper = classmethod(lambda cls: name)


def _inner(x: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return room for `x @ A.T`, of float32 as vLLM has it."""
    return torch.zeros((x.shape[0], b.shape[-1]), dtype=torch.float32, device=x.device)
