"""How surprised a model is by rows of tokens: summed losses per row, in nats, whatever the batching.

Rows that begin alike (a profile before each of a user's prompts) share one pass over what they have in common.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from training.loss import IGNORED, collate, label_losses, label_states, projection
from training.tokens import TokenisedExample

_BATCH_TOKENS = 1024
_SHARED_TOKENS = 64  # a shorter common beginning is not worth a cache
_SHARED_ROWS = 8  # rows of a batch that each hold a copy of the cached beginning


@dataclass(frozen=True, kw_only=True)
class RowLoss:
    """One row's completion under one model: nats over all its tokens, and how many of them the model would choose.

    `matches` says for each completion token whether it is the most likely one after the true tokens before it; when all
    are, greedy decoding writes the whole completion.
    """

    nats: float
    tokens: int
    matches: tuple[bool, ...] = ()

    @property
    def mean(self) -> float:
        """Nats per token."""
        return self.nats / self.tokens


def mean_loss(losses: Sequence[RowLoss]) -> float:
    """Return nats per token over all rows together."""
    return sum(row.nats for row in losses) / sum(row.tokens for row in losses)


class Scorer:
    """Scores rows under whatever model it is handed; holds the padding and the device."""

    def __init__(self, *, pad_token_id: int, device: str) -> None:
        self._pad, self._device = pad_token_id, device

    def score(self, model: Any, rows: Sequence[TokenisedExample]) -> list[RowLoss]:
        """Return each row's loss, in the order of `rows`."""
        shared = _shared_length(rows)
        if shared >= _SHARED_TOKENS and len(rows) > 1:
            return self._score_after(model, rows, shared)
        found: dict[int, RowLoss] = {}
        for batch in _batches(rows, skipped=0, most_rows=len(rows)):
            tensors = self._collate([rows[index] for index in batch])
            with torch.inference_mode():
                losses, owners = label_losses(model, tensors)
            totals = torch.zeros(len(batch), dtype=torch.float64).index_add_(0, owners.cpu(), losses.double().cpu())
            for place, index in enumerate(batch):
                found[index] = RowLoss(nats=float(totals[place]), tokens=rows[index].n_labels)
        return [found[index] for index in range(len(rows))]

    def match(
        self, model: Any, rows: Sequence[TokenisedExample], *, between: Callable[[], None] | None = None
    ) -> list[RowLoss]:
        """Return each row's loss, and which of its completion tokens are the model's first choice.

        `between` is called between two batches; what it raises ends the pass.
        """
        found: dict[int, RowLoss] = {}
        for batch in _batches(rows, skipped=0, most_rows=len(rows)):
            if found and between is not None:
                between()
            tensors = self._collate([rows[index] for index in batch])
            with torch.inference_mode():
                states = label_states(model, tensors)
                logits = projection(model)(states.hidden)
            losses = torch.nn.functional.cross_entropy(logits, states.targets, reduction="none").double().cpu()
            hits, owners = (logits.argmax(-1) == states.targets).cpu(), states.rows.cpu()
            for place, index in enumerate(batch):
                mine = owners == place
                found[index] = RowLoss(
                    nats=float(losses[mine].sum()),
                    tokens=rows[index].n_labels,
                    matches=tuple(bool(hit) for hit in hits[mine]),
                )
        return [found[index] for index in range(len(rows))]

    def next_tokens(self, model: Any, rows: Sequence[Sequence[int]], choices: Sequence[int]) -> torch.Tensor:
        """Return the log-probability of each of `choices` as the next token after each row: (rows, choices)."""
        out = torch.zeros((len(rows), len(choices)))
        wrapped = [TokenisedExample(input_ids=(*row, choices[0]), prompt_length=len(row)) for row in rows]
        for batch in _batches(wrapped, skipped=0, most_rows=len(rows)):
            tensors = self._collate([wrapped[index] for index in batch])
            with torch.inference_mode():
                logits = projection(model)(label_states(model, tensors).hidden)
            out[batch] = logits.log_softmax(-1)[:, list(choices)].cpu()
        return out

    def _score_after(self, model: Any, rows: Sequence[TokenisedExample], shared: int) -> list[RowLoss]:
        """Run the common beginning once, then every rest behind a copy of its cache."""
        found: dict[int, RowLoss] = {}
        with torch.inference_mode():
            beginning = torch.tensor([rows[0].input_ids[:shared]], device=self._device)
            cache = model.base_model(input_ids=beginning, use_cache=True).past_key_values
            for batch in _batches(rows, skipped=shared, most_rows=_SHARED_ROWS):
                rests = [
                    TokenisedExample(
                        input_ids=rows[index].input_ids[shared:], prompt_length=rows[index].prompt_length - shared
                    )
                    for index in batch
                ]
                totals = self._rest_losses(model, rests, cache, shared)
                for place, index in enumerate(batch):
                    found[index] = RowLoss(nats=float(totals[place]), tokens=rows[index].n_labels)
        return [found[index] for index in range(len(rows))]

    def _rest_losses(self, model: Any, rests: Sequence[TokenisedExample], cache: Any, shared: int) -> torch.Tensor:
        tensors = self._collate(rests)
        before = torch.ones((len(rests), shared), dtype=torch.long, device=self._device)
        mine = copy.deepcopy(cache)
        mine.batch_repeat_interleave(len(rests))
        hidden = model.base_model(
            input_ids=tensors["input_ids"],
            attention_mask=torch.cat([before, tensors["attention_mask"]], dim=1),
            past_key_values=mine,
            use_cache=True,
        ).last_hidden_state[:, :-1]
        targets = tensors["labels"][:, 1:]
        at_label = targets != IGNORED
        logits = projection(model)(hidden[at_label])
        losses = torch.nn.functional.cross_entropy(logits, targets[at_label], reduction="none").double().cpu()
        owners = at_label.nonzero()[:, 0].cpu()
        return torch.zeros(len(rests), dtype=torch.float64).index_add_(0, owners, losses)

    def _collate(self, rows: Sequence[TokenisedExample]) -> dict[str, torch.Tensor]:
        return {key: tensor.to(self._device) for key, tensor in collate(rows, pad_token_id=self._pad).items()}


def _shared_length(rows: Sequence[TokenisedExample]) -> int:
    """How many tokens all rows begin with, at least one prompt token short of the shortest prompt."""
    if not rows:
        return 0
    shortest = min(row.prompt_length for row in rows) - 1
    first, last = min(row.input_ids for row in rows), max(row.input_ids for row in rows)
    shared = 0
    while shared < shortest and first[shared] == last[shared]:
        shared += 1
    return shared


def _batches(rows: Sequence[TokenisedExample], *, skipped: int, most_rows: int) -> list[list[int]]:
    """Indices of rows of similar length together, at most about a thousand padded tokens a batch."""
    batches: list[list[int]] = []
    for index in sorted(range(len(rows)), key=lambda index: len(rows[index].input_ids)):
        width = len(rows[index].input_ids) - skipped
        if batches and len(batches[-1]) < most_rows and (len(batches[-1]) + 1) * width <= _BATCH_TOKENS:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches
