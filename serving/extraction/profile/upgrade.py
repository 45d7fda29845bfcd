"""Profiles as an earlier release kept them, read as today's."""

from __future__ import annotations

from typing import Any

from serving.extraction.profile.fact_id import fact_id
from serving.extraction.profile.profile import SCHEMA_VERSION, Profile
from serving.extraction.scoring.confidence import Calibration, Scores, standard_calibration


def read_document(document: dict[str, Any]) -> Profile:
    """Return the profile that a kept document holds; those of schema 1 get ids, times and confidences."""
    if document.get("schema_version") == "lorry.profile/1":
        document = _from_first(document, standard_calibration())
    return Profile.model_validate(document)


def _from_first(document: dict[str, Any], calibration: Calibration) -> dict[str, Any]:
    topics = [
        {**section, "statements": [_statement(s, calibration) for s in section["statements"]]}
        for section in document["topics"]
    ]
    origin = calibration.origin().model_dump()
    return {**document, "schema_version": SCHEMA_VERSION, "calibration": origin, "topics": topics}


def _statement(statement: dict[str, Any], calibration: Calibration) -> dict[str, Any]:
    times = sorted(quote["time"] for quote in statement["support"] if quote["time"])
    scores = Scores(
        agreeing=statement["agreement"]["k"],
        asked=statement["agreement"]["n"],
        contrast=None,
        surprise=None,
        supporting=len(statement["support"]),
        contradicting=len(statement["contradictions"]),
    )
    return {
        **statement,
        "id": fact_id(statement["text"]),
        "confidence": calibration.confidence(scores),
        "first_seen": times[0] if times else None,
        "last_seen": times[-1] if times else None,
    }
