"""The CPU engine's LoRA product, without the delta that stock vLLM gives to tokens of the base model.

vLLM marks a token without an adapter by slot −1. Its CPU product indexes the stacked weights with that
number, and −1 is the last slot: base requests in a batch with adapter requests get that adapter's delta
(vllm-project/vllm#48421). Here each slot's product is computed for that slot's rows only, so there is nothing that
−1 could index, and no row's weights are gathered.

Private seam, CPU only: the platform's choice of wrapper class, and the class `PunicaWrapperCPU`. The contract test in
``tests/contract/test_vllm_surface.py`` fails when either is not what this file was written for.

Axes: x (tokens, features in); A (slots, 1, rank, features in); B (slots, 1, features out, rank).
"""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.platforms import current_platform

Rows: TypeAlias = "slice | torch.Tensor"
Groups: TypeAlias = list[tuple[int, Rows]]


class MaskedPunicaWrapper(PunicaWrapperCPU):  # type: ignore[misc]  # vLLM is not typed
    """Computes each slot's product for the tokens of that slot, and nothing for the rest."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._token_groups: Groups = []
        self._sampler_groups: Groups = []

    def update_metadata(self, *args: Any, **kwargs: Any) -> None:
        """Group the step's tokens by slot, once for all layers."""
        super().update_metadata(*args, **kwargs)
        self._token_groups = group_rows(self.token_lora_indices)
        self._sampler_groups = group_rows(self.sampler_indices)

    def _apply_shrink(self, y: torch.Tensor, x: torch.Tensor, w_t_all: torch.Tensor, scale: float) -> None:
        shrink(y.view(-1, y.shape[-1]), x, w_t_all, self._token_groups, scale=scale)

    def _apply_expand(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        w_t_all: torch.Tensor,
        y_offset: int,
        y_slice_size: int,
        add_inputs: bool = True,
    ) -> None:
        out = y[:, y_offset : y_offset + y_slice_size]
        expand(out, x, w_t_all, self._token_groups, add_inputs=add_inputs)

    def add_lora_embedding(
        self, y: torch.Tensor, x: torch.Tensor, lora_b_stacked: torch.Tensor, add_inputs: bool = True, **kwargs: Any
    ) -> None:
        """Add B's product to the embeddings `y` of the tokens that have an adapter."""
        expand(y, x, lora_b_stacked, self._token_groups, add_inputs=add_inputs)

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
        if buffer is None:
            buffer = torch.zeros((x.shape[0], lora_b_stacked.shape[-1]), dtype=torch.float32, device=x.device)
        shrink(buffer, x, lora_a_stacked, self._sampler_groups, scale=scale)
        expand(y, buffer, lora_b_stacked, self._sampler_groups, add_inputs=True)


def use_masked_product() -> None:
    """Make vLLM's CPU platform build `MaskedPunicaWrapper`; calling it again changes nothing."""
    name = f"{MaskedPunicaWrapper.__module__}.{MaskedPunicaWrapper.__qualname__}"
    type(current_platform).get_punica_wrapper = classmethod(lambda cls: name)


def group_rows(slots: torch.Tensor) -> Groups:
    """Return (slot, its rows) for every slot in `slots` (rows,); rows of slot −1 are in no group."""
    groups: Groups = []
    for slot in torch.unique(slots).tolist():
        if slot >= 0:
            groups.append((slot, _as_slice(torch.nonzero(slots == slot).squeeze(1))))
    return groups


def shrink(y: torch.Tensor, x: torch.Tensor, a: torch.Tensor, groups: Groups, *, scale: float) -> None:
    """Set ``y[:, :rank] = scale * x @ A[slot].T`` in each slot's rows, and zero in the others."""
    rank = a.shape[-2]
    y[:, :rank] = 0
    for slot, rows in groups:
        y[rows, :rank] = scale * (x[rows].to(y.dtype) @ _matrix(a, slot).to(y.dtype).T)


def expand(y: torch.Tensor, x: torch.Tensor, b: torch.Tensor, groups: Groups, *, add_inputs: bool) -> None:
    """Add ``x @ B[slot].T`` to each slot's rows of `y`; without `add_inputs` set them, and zero the others.

    The base model and the adapter may pad their outputs differently: the common columns are written.
    """
    width = min(y.shape[1], b.shape[-2])
    if not add_inputs:
        y[:, :width] = 0
    for slot, rows in groups:
        y[rows, :width] += x[rows].to(y.dtype) @ _matrix(b, slot)[:width].to(y.dtype).T


def _matrix(stacked: torch.Tensor, slot: int) -> torch.Tensor:
    return stacked[slot].squeeze(0) if stacked.dim() == 4 else stacked[slot]


def _as_slice(rows: torch.Tensor) -> Rows:
    """A request's tokens are neighbours, and a slice of them is a view where an index makes a copy."""
    first, last = int(rows[0]), int(rows[-1])
    return slice(first, last + 1) if last - first + 1 == len(rows) else rows
