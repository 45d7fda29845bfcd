"""Profiles made by hand, for tests that only keep and show them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from serving.extraction.profile import (
    AdapterVersion,
    Agreement,
    Asked,
    BankVersion,
    CalibrationVersion,
    Profile,
    Quote,
    Statement,
    TopicSection,
)
from serving.extraction.profile.fact_id import fact_id


def a_statement(text: str, *quotes: tuple[str, str], confidence: float = 0.7) -> Statement:
    """A statement with its quotes, each (words, transcript id); a year later each."""
    return Statement(
        id=fact_id(text),
        text=text,
        wording="user",
        confidence=confidence,
        agreement=Agreement(k=1, n=6),
        support=tuple(
            Quote(quote=quote, transcript_id=transcript, turn=index, time=datetime(2020 + index, 1, 1, tzinfo=UTC))
            for index, (quote, transcript) in enumerate(quotes or ((text, "t1"),))
        ),
    )


def profile_of(*statements: Statement, user: str = "ann", topic: str = "interests", version: int = 1) -> Profile:
    """A profile that states these under one topic, and nothing under another."""
    values: dict[str, Any] = {
        "user": user,
        "adapter": AdapterVersion(version=version, version_id=f"v{version:032d}"),
        "bank": BankVersion(name="test", version="1"),
        "calibration": CalibrationVersion(version="test", basis="prior"),
        "generated_at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "asked": Asked(questions=0, samples=0, unusable_answers=0, unsupported_claims=0),
        "topics": (TopicSection.of(topic, "Interests", statements), TopicSection.of("places", "Plätze ☂", ())),
    }
    return Profile(**values)
