"""Candidates: supported facts that may be stated, and which of them say the same."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from serving.extraction.asking.agreement import like_alike
from serving.extraction.profile.profile import Asked
from serving.extraction.scoring.confidence import Scores
from serving.extraction.support.evidence import Fact, with_evidence_of


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
    """Return each liking once: ``I love knitting`` and ``I really like knitting`` are one, with the quotes of both.

    The first wording stays, with its own scores; put the surest first.
    """
    kept: list[Candidate] = []
    for candidate in candidates:
        place = next((n for n, each in enumerate(kept) if like_alike(each.fact.clause, candidate.fact.clause)), None)
        if place is None:
            kept.append(candidate)
        else:
            kept[place] = replace(kept[place], fact=with_evidence_of(kept[place].fact, candidate.fact))
    return kept
