"""Bootstrap intervals, seeded: the same measurements and seed give the same interval on every machine."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean and the interval that holds `level` of the resampled means. Laws: ``low <= high``; n ≥ 1."""

    mean: float
    low: float
    high: float
    n: int
    level: float = LEVEL

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, which `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Rebuild what `to_json` wrote."""
        return cls(**value)


def estimate(values: Sequence[float], *, seed: int) -> Estimate:
    """Return the mean of `values` and its interval.

    Raises:
        ValueError: there are no values.
    """
    return estimate_ratio(values, [1.0] * len(values), seed=seed)


def estimate_ratio(sums: Sequence[float], counts: Sequence[float], *, seed: int) -> Estimate:
    """Return total `sums` ÷ total `counts`, and its interval over resampled pairs.

    What is resampled are the pairs, which is right for losses per token of whole replies: tokens of one reply are no
    independent draws.

    Raises:
        ValueError: there are no pairs, or their counts add up to nothing.
    """
    if not sums or sum(counts) <= 0:
        raise ValueError("there is nothing to estimate from")
    pairs = list(zip(sums, counts, strict=True))
    rng = random.Random(f"bootstrap:{seed}")
    means = sorted(_ratio(rng.choices(pairs, k=len(pairs))) for _ in range(RESAMPLES))
    tail = round((1 - LEVEL) / 2 * RESAMPLES)
    return Estimate(mean=_ratio(pairs), low=means[tail], high=means[-1 - tail], n=len(pairs))


def _ratio(pairs: Sequence[tuple[float, float]]) -> float:
    total = sum(count for _, count in pairs)
    return sum(value for value, _ in pairs) / total if total else 0.0
