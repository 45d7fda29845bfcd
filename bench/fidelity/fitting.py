"""Fitting and measuring the calibration: a logistic model by Newton's method, Brier score, reliability table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from serving.extraction.scoring.confidence import (
    Bin,
    Calibration,
    Measured,
    Provenance,
    Scores,
    Weights,
    features,
)

# Keeps weights finite where a feature tells true from false without fault; in units of observations.
_RIDGE = 1.0
_STEPS = 100
_BINS = 5


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A fact that was proposed, whose it is, and whether it is true of them and not said of everybody."""

    person: str
    scores: Scores
    is_true: bool


def fit(facts: Sequence[Judged], *, base: str, bank: str, seed: int) -> Calibration:
    """Return the calibration that these facts give, not measured yet.

    Raises:
        ValueError: when they are all true or all false, so that there is nothing to tell.
    """
    measured = [fact for fact in facts if None not in (fact.scores.contrast, fact.scores.surprise)]
    if len({fact.is_true for fact in measured}) < 2:
        raise ValueError("facts that are true and facts that are false are both needed")
    rows = [features(fact.scores) for fact in facts]
    with_contrast = [(a, c, u, s) for a, c, u, s in rows if c is not None and u is not None]
    truth = np.array([fact.is_true for fact in facts], dtype=float)
    b0, b1, b2, b3, b4 = _logistic(np.array(with_contrast), np.array([f.is_true for f in measured], dtype=float))
    c0, c1, c2 = _logistic(np.array([(each.agreement, each.support) for each in rows]), truth)
    today = datetime.now(UTC).date().isoformat()
    return Calibration(
        version=f"fitted-{today}",
        with_contrast=Weights(intercept=b0, agreement=b1, contrast=b2, surprise=b3, support=b4),
        without_contrast=Weights(intercept=c0, agreement=c1, support=c2),
        provenance=Provenance(
            basis="fitted",
            made_on=today,
            people=len({fact.person for fact in facts}),
            facts=len(facts),
            base=base,
            bank=bank,
            seed=seed,
            note="made people of bench/extraction_fidelity.py whom nothing else was measured on",
        ),
    )


def measure(calibration: Calibration, facts: Sequence[Judged]) -> Measured:
    """Return how good a calibration is on facts of people that it was not fitted on.

    Raises:
        ValueError: when there are no facts.
    """
    if not facts:
        raise ValueError("no facts to measure on")
    said = np.array([calibration.confidence(fact.scores) for fact in facts])
    true = np.array([fact.is_true for fact in facts], dtype=float)
    return Measured(
        people=len({fact.person for fact in facts}),
        facts=len(facts),
        brier=_rounded(np.mean((said - true) ** 2)),
        brier_of_the_mean=_rounded(np.mean((true.mean() - true) ** 2)),
        reliability=tuple(_bins(said, true)),
    )


def _bins(said: np.ndarray, true: np.ndarray) -> list[Bin]:
    found = []
    for number in range(_BINS):
        low, high = number / _BINS, (number + 1) / _BINS
        inside = (said >= low) & ((said < high) | (number == _BINS - 1))
        if inside.any():
            found.append(
                Bin(
                    low=low,
                    high=high,
                    count=int(inside.sum()),
                    mean_confidence=_rounded(said[inside].mean()),
                    true=_rounded(true[inside].mean()),
                )
            )
    return found


def _logistic(rows: np.ndarray, truth: np.ndarray) -> list[float]:
    """Return intercept and weights; rows (facts, features). The intercept is not held back."""
    inputs = np.column_stack([np.ones(len(rows)), rows])
    ridge = np.diag([1e-6] + [_RIDGE] * rows.shape[1])
    weights = np.zeros(inputs.shape[1])
    for _ in range(_STEPS):
        probability = 1 / (1 + np.exp(-np.clip(inputs @ weights, -30, 30)))
        gradient = inputs.T @ (truth - probability) - ridge @ weights
        curvature = inputs.T @ (inputs * (probability * (1 - probability))[:, None]) + ridge
        step = np.linalg.solve(curvature, gradient)
        weights = weights + step
        if np.abs(step).max() < 1e-10:
            break
    return [_rounded(weight) for weight in weights]


def _rounded(value: float) -> float:
    return round(float(value), 4)
