"""From a fact's scores to one confidence, by figures that stand in a file with where they come from.

A logistic model of agreement (share of samples), contrast (nats a token, clipped), surprise (nats, clipped) and support
(turns that say the same, less those that say the opposite), with a second set of figures for facts whose contrast and
surprise were not measured.
`bench/extraction_fidelity.py` fits both on made people that nothing else is measured on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, Field

from serving.extraction.profile.profile import CalibrationVersion

CALIBRATION_FILE = "calibration.yaml"
_LEAST_CONTRAST, _MOST_CONTRAST = -1.0, 4.0
_MOST_SURPRISE = 40.0
_DECIMALS = 3


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What is known of one fact: samples that agree of those asked, contrast and surprise, turns for and against."""

    agreeing: int
    asked: int
    contrast: float | None
    surprise: float | None
    supporting: int
    contradicting: int = 0


class Features(NamedTuple):
    """What the model sees: share of agreeing samples, clipped contrast and surprise, log-support for less against."""

    agreement: float
    contrast: float | None
    surprise: float | None
    support: float


class Weights(BaseModel):
    """A logistic model: the weight of each feature, and the intercept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    intercept: float
    agreement: float
    contrast: float = 0.0
    surprise: float = 0.0
    support: float

    def log_odds(self, seen: Features) -> float:
        """Return the log-odds of a fact with these features."""
        measured = self.contrast * (seen.contrast or 0.0) + self.surprise * (seen.surprise or 0.0)
        return self.intercept + self.agreement * seen.agreement + measured + self.support * seen.support


class Bin(BaseModel):
    """One row of a reliability table: of the `count` facts with a confidence from `low` to `high`, `true` were true."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: float
    high: float
    count: int = Field(ge=0)
    mean_confidence: float
    true: float


class Provenance(BaseModel):
    """Where the figures come from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    basis: Literal["prior", "fitted"]
    made_on: str
    people: int = Field(ge=0)
    facts: int = Field(ge=0)
    base: str | None = None
    bank: str | None = None
    seed: int | None = None
    note: str = ""


class Measured(BaseModel):
    """How well the figures did on people that they were not fitted on, beside always saying their mean."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    people: int
    facts: int
    brier: float
    brier_of_the_mean: float
    reliability: tuple[Bin, ...]


class Calibration(BaseModel):
    """The whole file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    with_contrast: Weights
    without_contrast: Weights
    provenance: Provenance
    measured: Measured | None = None

    def confidence(self, scores: Scores) -> float:
        """Return how likely a fact is true of the user and not of everybody, between 0 and 1."""
        weights = self.without_contrast if scores.contrast is None else self.with_contrast
        return round(_logistic(weights.log_odds(features(scores))), _DECIMALS)

    def origin(self) -> CalibrationVersion:
        """Return what a profile says of it."""
        return CalibrationVersion(version=self.version, basis=self.provenance.basis)


def features(scores: Scores) -> Features:
    """Return what the model sees of these scores."""
    return Features(
        agreement=scores.agreeing / scores.asked if scores.asked else 0.0,
        contrast=None if scores.contrast is None else min(max(scores.contrast, _LEAST_CONTRAST), _MOST_CONTRAST),
        surprise=None if scores.surprise is None else min(max(scores.surprise, 0.0), _MOST_SURPRISE),
        support=math.log1p(scores.supporting) - math.log1p(scores.contradicting),
    )


def _logistic(log_odds: float) -> float:
    return 1 / (1 + math.exp(-max(min(log_odds, 30.0), -30.0)))


def read_calibration(value: Any) -> Calibration:
    """Return the calibration that a YAML document holds."""
    return Calibration.model_validate(value)


@cache
def standard_calibration() -> Calibration:
    """Return the figures that Lorry ships."""
    text = files("serving.extraction.scoring").joinpath(CALIBRATION_FILE).read_text(encoding="utf-8")
    return read_calibration(yaml.safe_load(text))
