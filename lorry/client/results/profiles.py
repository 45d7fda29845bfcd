"""Profiles, how they change, and what people correct of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from lorry.client.results.result import Result

CorrectionKind = Literal["edit", "confirm", "forbid"]


class Quote(Result):
    """A passage of what the user said; `turn` counts from 0 in its transcript."""

    quote: str
    transcript_id: str
    turn: int
    time: datetime | None = None


class Agreement(Result):
    """How often the adapter says it unasked: in `k` of `n` samples."""

    k: int
    n: int


class Mark(Result):
    """What a person did to a statement."""

    correction_id: int
    kind: str
    by: str
    at: datetime


class Statement(Result):
    """One fact: what is said of the user, how sure it is, and which words of theirs it stands on.

    `contrast` is in nats a token, near zero for what anybody would say; `surprise` is in nats, little for it.
    docs/profiles.md says what each score means.
    """

    topic: str = ""
    id: str
    text: str
    wording: str
    confidence: float
    agreement: Agreement | None = None
    contrast: float | None = None
    surprise: float | None = None
    support: tuple[Quote, ...] = ()
    contradictions: tuple[Quote, ...] = ()
    first_seen: datetime | None = None
    last_seen: datetime | None = None
    correction: Mark | None = None


class Profile(Result):
    """A user's profile: the document of docs/profile.schema.json, and the version of the adapter that was asked."""

    document: dict[str, Any]
    adapter_version: int | None
    etag: str

    @property
    def statements(self) -> tuple[Statement, ...]:
        """Everything that the document states, topic by topic."""
        return tuple(
            Statement.model_validate({**each, "topic": section["topic"]})
            for section in self.document["topics"]
            for each in section["statements"]
        )


class FactChange(Result):
    """One fact with its confidence before and after; None = it was not there, or is not any more."""

    id: str
    topic: str
    text: str
    before: float | None
    after: float | None
    transcript_ids: tuple[str, ...]


class ProfileDifference(Result):
    """What changed with the newest profile; `since` None = it is the first, `forgotten` counts what may not be told."""

    since: datetime | None
    added: tuple[FactChange, ...] = ()
    gone: tuple[FactChange, ...] = ()
    changed: tuple[FactChange, ...] = ()
    forgotten: int = 0


class Correction(Result):
    """What somebody did to a fact; in force until it is withdrawn.

    `text` is the fact as it stood, or what is forbidden; `statement` what an edit put in its place, or was confirmed.
    These two and `topic` are None for an API key that may not read profiles.
    """

    id: int
    kind: CorrectionKind
    fact_id: str
    text: str | None
    topic: str | None
    statement: Statement | None
    made_by: str
    made_at: datetime
    withdrawn_by: str | None
    withdrawn_at: datetime | None
