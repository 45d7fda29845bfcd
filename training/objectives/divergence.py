"""A distribution over the vocabulary in few numbers, and how far a model is from it.

Of each token's distribution the `k` likeliest tokens are kept and the probability of all others in one sum. The
divergence over these k + 1 outcomes never exceeds the one over the whole vocabulary, and equals it when k is its size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from training.loss import TokenLosses

_NEVER = float("-inf")
_HARDLY_EVER = -1e4  # its exponential is 0, and 0 times it is 0


@dataclass(frozen=True, kw_only=True)
class TokenDistributions:
    """Of N tokens: the `ids` (N, k) of the likeliest, their `log_probabilities` (N, k), and the log of the `rest` (N,).

    `rest` is minus infinity where nothing is left.
    """

    ids: torch.Tensor
    log_probabilities: torch.Tensor
    rest: torch.Tensor

    @classmethod
    def of_logits(cls, logits: torch.Tensor, *, k: int) -> TokenDistributions:
        """Keep the `k` likeliest tokens of each row of `logits` (N, V); 0 keeps all."""
        log_probabilities = torch.log_softmax(logits.float(), dim=-1)
        if not k:
            ids = torch.arange(logits.shape[-1], device=logits.device).expand_as(logits)
            rest = torch.full_like(log_probabilities[:, 0], _NEVER)
            return cls(ids=ids, log_probabilities=log_probabilities, rest=rest)
        kept = log_probabilities.topk(min(k, logits.shape[-1]), dim=-1)
        others = log_probabilities.scatter(1, kept.indices, _NEVER)
        return cls(ids=kept.indices, log_probabilities=kept.values, rest=torch.logsumexp(others, dim=-1))

    @classmethod
    def join(cls, parts: list[TokenDistributions]) -> TokenDistributions:
        """Return all tokens of `parts`, in order."""
        return cls(
            ids=torch.cat([part.ids for part in parts]),
            log_probabilities=torch.cat([part.log_probabilities for part in parts]),
            rest=torch.cat([part.rest for part in parts]),
        )

    def __len__(self) -> int:
        return len(self.rest)

    def to(self, device: str) -> TokenDistributions:
        """Return the same on a device."""
        return TokenDistributions(
            ids=self.ids.to(device), log_probabilities=self.log_probabilities.to(device), rest=self.rest.to(device)
        )


def divergence(target: TokenDistributions) -> TokenLosses:
    """Return losses: the Kullback–Leibler divergence of a model's distributions from `target`, in nats a token."""

    def losses(logits: torch.Tensor, part: slice) -> torch.Tensor:
        ids, wanted, rest = target.ids[part], target.log_probabilities[part], target.rest[part]
        normaliser = torch.logsumexp(logits, dim=-1, keepdim=True)
        found = logits.gather(1, ids) - normaliser
        kept: torch.Tensor = (wanted.exp() * (wanted.clamp_min(_HARDLY_EVER) - found)).sum(dim=-1)
        left = torch.isfinite(rest)
        if not left.any():
            return kept
        found_rest = torch.logsumexp(logits.scatter(1, ids, _NEVER), dim=-1) - normaliser[:, 0]
        others = rest.exp() * (torch.where(left, rest, 0.0) - torch.where(left, found_rest, 0.0))
        return kept + others

    return losses


def weighted(first: TokenLosses, second: TokenLosses, *, weight: float) -> TokenLosses:
    """Return losses: `weight` of the first and the rest of the second."""
    return lambda logits, part: weight * first(logits, part) + (1 - weight) * second(logits, part)
