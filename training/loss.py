"""The loss, computed only where labels are, a few tokens at a time.

A vocabulary of 49,152 makes logits the largest tensor of a step, and a prompt's would be thrown away. So hidden
states are picked at labelled positions before they are projected; and since the projection is frozen, each chunk's
gradient is taken at once, so that no chunk's logits outlive it: memory does not grow with labels. Axes: B rows,
T tokens, N labelled tokens of all rows, H hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from training.tokens import TokenisedExample

IGNORED = -100
_CHUNK_TOKENS = 64
_WORTH_SHARING = 16  # tokens that are not computed again; fewer are not worth a second call

TokenLosses = Callable[[torch.Tensor, slice], torch.Tensor]  # logits (n, V) of a slice of the labels → losses (n,)


@dataclass(frozen=True, kw_only=True)
class LabelStates:
    """Hidden states where labels are: `hidden` (N, H), their `targets` (N,), the row each is in (N,), row after row."""

    hidden: torch.Tensor
    targets: torch.Tensor
    rows: torch.Tensor


def collate(examples: Sequence[TokenisedExample], *, pad_token_id: int) -> dict[str, torch.Tensor]:
    """Return ``input_ids``, ``attention_mask`` and ``labels``, each (B, T), padded on the right."""
    width = max(len(example.input_ids) for example in examples)
    ids = torch.full((len(examples), width), pad_token_id, dtype=torch.long)
    labels = torch.full((len(examples), width), IGNORED, dtype=torch.long)
    mask = torch.zeros((len(examples), width), dtype=torch.long)
    for row, example in enumerate(examples):
        length = len(example.input_ids)
        ids[row, :length] = torch.tensor(example.input_ids)
        labels[row, :length] = torch.tensor(example.labels)
        mask[row, :length] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def label_losses(model: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss of each labelled token in nats (N,) and the row it belongs to (N,), row after row.

    `model` is a causal language model of transformers, with or without an adapter in its layers. Its output
    projection may not carry an adapter, which Lorry's adapters never do.
    """
    states = label_states(model, batch)
    return projected_losses(model, states.hidden, cross_entropy(states.targets)), states.rows


def label_states(model: Any, batch: dict[str, torch.Tensor]) -> LabelStates:
    """Run `model` over `batch` up to its last hidden states and keep those from which a label is predicted.

    What all rows begin with, the chat template's opening, is computed once: each token sees only those before it, so
    its states and their share of the gradient are the same for every row.
    """
    shared = shared_prefix(batch)
    targets = batch["labels"][:, shared + 1 :]
    at_label = targets != IGNORED
    hidden = _last_states(model, batch, shared)[:, :-1]  # (B, T-shared-1, H)
    return LabelStates(hidden=hidden[at_label], targets=targets[at_label], rows=at_label.nonzero()[:, 0])


def shared_prefix(batch: dict[str, torch.Tensor]) -> int:
    """Return how many tokens all rows begin with, before any that predicts a label; 0 where sharing saves little."""
    ids = batch["input_ids"]
    labelled = (batch["labels"] != IGNORED).any(dim=0).nonzero()
    differs = (ids != ids[:1]).any(dim=0).nonzero()
    ends = [int(first[0]) for first in (differs, labelled - 1) if len(first)]
    length = max(0, min(ends, default=0))
    return length if length * (len(ids) - 1) >= _WORTH_SHARING else 0


def _last_states(model: Any, batch: dict[str, torch.Tensor], shared: int) -> torch.Tensor:
    """The last hidden states (B, T-shared, H) of what follows the first `shared` tokens.

    Where activations are recomputed, and where a layer's keys are kept in another way than one after the other, every
    row is computed whole.
    """
    ids, mask = batch["input_ids"], batch["attention_mask"]
    recomputes = getattr(model, "is_gradient_checkpointing", False) and model.training
    cache = DynamicCache(config=model.config) if shared and not recomputes else None
    if cache is None or any(type(layer) is not DynamicLayer for layer in cache.layers):
        whole: torch.Tensor = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        return whole[:, shared:]
    model.base_model(input_ids=ids[:1, :shared], past_key_values=cache, use_cache=True)
    for layer in cache.layers:
        layer.keys, layer.values = (each.expand(len(ids), -1, -1, -1) for each in (layer.keys, layer.values))
    rest: torch.Tensor = model.base_model(
        input_ids=ids[:, shared:], attention_mask=mask, past_key_values=cache, use_cache=True
    ).last_hidden_state
    return rest


def projected_losses(
    model: Any, hidden: torch.Tensor, losses: TokenLosses, *, chunk_tokens: int = _CHUNK_TOKENS
) -> torch.Tensor:
    """Return the loss of each row of `hidden` (N, H) as (N,), through the model's frozen output projection.

    `losses` may read only the slice of the labels that it is told, and row n of its result only row n of its logits.
    """
    project = projection(model)
    if hidden.requires_grad and torch.is_grad_enabled():
        result: torch.Tensor = _ProjectedLosses.apply(hidden, project, losses, chunk_tokens)
        return result
    parts = [losses(project(hidden[part]), part) for part in _slices(len(hidden), chunk_tokens)]
    return torch.cat(parts) if parts else hidden.new_zeros(0, dtype=torch.float32)


def projection(model: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return hidden states (n, H) → logits (n, V) in float32, scaled and capped as the model's own forward does it."""
    head, config = model.get_output_embeddings(), model.config
    scale = getattr(config, "logit_scale", None) or 1.0
    divisor = getattr(config, "logits_scaling", None) or 1.0
    cap = getattr(config, "final_logit_softcapping", None)

    def project(hidden: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = head(hidden).float()
        if scale != 1.0 or divisor != 1.0:
            logits = logits * (scale / divisor)
        return logits if cap is None else torch.tanh(logits / cap) * cap

    return project


def cross_entropy(targets: torch.Tensor) -> TokenLosses:
    """Return the losses of `targets` (N,) in nats."""

    def losses(logits: torch.Tensor, part: slice) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(logits, targets[part], reduction="none")

    return losses


class _ProjectedLosses(torch.autograd.Function):  # type: ignore[misc]
    """Losses chunk by chunk, keeping the gradient with respect to the hidden states instead of the logits."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        project: Callable[[torch.Tensor], torch.Tensor],
        losses: TokenLosses,
        chunk_tokens: int,
    ) -> torch.Tensor:
        result = hidden.new_empty(len(hidden), dtype=torch.float32)
        gradient = torch.empty_like(hidden)
        for part in _slices(len(hidden), chunk_tokens):
            with torch.enable_grad():
                chunk = hidden[part].detach().requires_grad_()
                values = losses(project(chunk), part)
                (gradient[part],) = torch.autograd.grad(values.sum(), chunk)
            result[part] = values.detach()
        ctx.save_for_backward(gradient)
        return result

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * outer[0][:, None].to(gradient.dtype), None, None, None


def _slices(length: int, chunk: int) -> list[slice]:
    return [slice(start, min(start + chunk, length)) for start in range(0, length, chunk)]
