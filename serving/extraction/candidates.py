"""Candidates: supported facts that may be stated, and which of them say the same."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from serving.extraction.asking.agreement import like_alike
from serving.extraction.profile.profile import Asked
from serving.extraction.scoring.confidence import Scores
from serving.extraction.support.evidence import Fact


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A supported fact under the topic that it fits, with its scores; confidence is theirs by the calibration."""

    fact: Fact
    topic: str
    scores: Scores
    confidence: float


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Everything supported that came up, the surest first, and what was asked for it."""

    candidates: tuple[Candidate, ...]
    asked: Asked


def once(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Return each liking once, in the wording that comes first: ``I love knitting``, ``I really like knitting``."""
    kept: list[Candidate] = []
    for candidate in candidates:
        if not any(like_alike(each.fact.clause, candidate.fact.clause) for each in kept):
            kept.append(candidate)
    return kept
