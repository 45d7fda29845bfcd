"""The loss, computed only where labels are.

A vocabulary of 49,152 makes logits the largest tensor of a step; a prompt's logits would be thrown away. Hidden
states are picked at labelled positions before they are projected. Axes: B rows, T tokens, N labelled tokens of all
rows, H hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from training.tokens import TokenisedExample

IGNORED = -100


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
    targets = batch["labels"][:, 1:]
    at_label = targets != IGNORED
    hidden = model.base_model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
    ).last_hidden_state[:, :-1]  # (B, T-1, H)
    logits = model.get_output_embeddings()(hidden[at_label]).float()  # (N, vocabulary)
    losses = torch.nn.functional.cross_entropy(logits, targets[at_label], reduction="none")
    return losses, at_label.nonzero()[:, 0]
