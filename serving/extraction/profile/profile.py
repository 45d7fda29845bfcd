"""What a profile is: statements with the words that back them, how sure each is, and measured patterns.

The JSON Schema in ``docs/profile.schema.json`` is generated from these models (``python -m
serving.extraction.profile``). Laws: ``Profile.model_validate_json(p.to_bytes()) == p``; a statement without support
cannot be built unless a person wrote it; a topic without statements says ``not_stated``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from kit.names import Name
from registry.manifest import VersionId

SCHEMA_VERSION: Literal["lorry.profile/2"] = "lorry.profile/2"
MAX_STATEMENT_CHARACTERS = 400

Confidence = Annotated[float, Field(ge=0, le=1)]
FactId = Annotated[str, Field(pattern=r"^f[0-9a-f]{12}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Quote(_Frozen):
    """The person's own words; `quote` is a passage of that turn, letter for letter."""

    quote: str = Field(min_length=1)
    transcript_id: str
    turn: int = Field(ge=0, description="index of the turn in its transcript, from 0")
    time: datetime | None = Field(None, description="when it was written; null where the source did not say")


class Agreement(_Frozen):
    """How often the adapter says it unasked: `k` of the `n` samples that answered the topics where it came up."""

    k: int = Field(ge=0)
    n: int = Field(ge=1)

    @model_validator(mode="after")
    def _part_of_whole(self) -> Self:
        if self.k > self.n:
            raise ValueError("agreement: k must not exceed n")
        return self


class Marked(_Frozen):
    """What a person did to a statement: it survives every new extraction until it is withdrawn."""

    correction_id: int = Field(ge=1)
    kind: Literal["edited", "confirmed"]
    by: str = Field(description="who")
    at: datetime


class Statement(_Frozen):
    """One thing that is said about the user, and what it stands on."""

    id: FactId = Field(description="equal for equal claims of one wording, in every profile; corrections name it")
    text: str = Field(min_length=1, max_length=MAX_STATEMENT_CHARACTERS)
    wording: Literal["adapter", "user", "person"] = Field(
        description="whose words `text` has: the adapter's, all of them found in each quote; the user's own clause; "
        "or those of the person who corrected it"
    )
    confidence: Confidence = Field(description="how likely it is true of this user and not said of anybody; calibrated")
    agreement: Agreement | None = Field(None, description="null for what a person wrote")
    contrast: float | None = Field(
        None,
        description="mean log-probability per token under the adapter minus under the base, in nats: near zero for a "
        "platitude; null where it was not measured",
    )
    surprise: float | None = Field(
        None,
        description="negative log-probability of all of it under the base, in nats: little for what many would say; "
        "null where contrast was not measured",
    )
    support: tuple[Quote, ...] = Field((), description="passages that say the same")
    contradictions: tuple[Quote, ...] = Field((), description="passages that say the opposite, the newest first")
    first_seen: datetime | None = Field(
        None, description="of all supporting turns found, quoted or not; null: no times"
    )
    last_seen: datetime | None = Field(None, description="of all supporting turns found, quoted or not; null: no times")
    correction: Marked | None = Field(None, description="what a person did to it; null when nobody did anything")

    @model_validator(mode="after")
    def _stands_on_something(self) -> Self:
        if not self.support and self.wording != "person":
            raise ValueError("support: a statement that no person wrote needs words of the user's own")
        if self.wording == "person" and self.correction is None:
            raise ValueError("correction: what a person wrote says who and when")
        return self


class TopicSection(_Frozen):
    """Everything stated under one topic of the bank."""

    topic: str
    title: str
    statements: tuple[Statement, ...] = ()
    not_stated: bool = Field(description="true when nothing under this topic had support and was sure enough")

    @model_validator(mode="after")
    def _says_when_empty(self) -> Self:
        if self.not_stated == bool(self.statements):
            raise ValueError("not_stated must be true exactly when there are no statements")
        return self

    @classmethod
    def of(cls, topic: str, title: str, statements: tuple[Statement, ...]) -> Self:
        """Return the section that holds these statements."""
        return cls(topic=topic, title=title, statements=statements, not_stated=not statements)


class Pattern(_Frozen):
    """A measured habit of writing: `count` of `of` is what `value` was measured from."""

    kind: Literal["pattern"] = "pattern"
    name: Annotated[str, Field(pattern=r"^[a-z][a-z_]*$")]
    text: str
    unit: Literal["share", "words"]
    value: float = Field(ge=0)
    count: int = Field(ge=0)
    of: int = Field(ge=1)


class AdapterVersion(_Frozen):
    """The adapter version that was asked."""

    version: int = Field(gt=0)
    version_id: VersionId


class BankVersion(_Frozen):
    """The question bank that was asked."""

    name: str
    version: str


class CalibrationVersion(_Frozen):
    """Where the confidences come from."""

    version: str
    basis: Literal["prior", "fitted"] = Field(description="set by hand, or fitted to people who were held out")


class Asked(_Frozen):
    """How much was asked, and what came of it."""

    questions: int = Field(ge=0, description="wordings put to the adapter")
    samples: int = Field(ge=0, description="answers sampled altogether")
    unusable_answers: int = Field(ge=0, description="answers with nothing readable in them")
    own_statements: int = Field(0, ge=0, description="statements of the user's own put to the adapter and the base")
    unsupported_claims: int = Field(ge=0, description="distinct claims left out because nothing backs them")
    uncertain_claims: int = Field(
        0, ge=0, description="supported claims left out because adapter and base say them much alike: platitudes"
    )


class Profile(_Frozen):
    """Everything extraction writes about one user."""

    schema_version: Literal["lorry.profile/2"] = SCHEMA_VERSION
    user: Name
    adapter: AdapterVersion
    bank: BankVersion
    calibration: CalibrationVersion
    generated_at: datetime
    asked: Asked
    topics: tuple[TopicSection, ...]
    patterns: tuple[Pattern, ...] = ()

    def to_bytes(self) -> bytes:
        """Return indented UTF-8 JSON."""
        return (json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n").encode()

    def statements(self) -> Iterator[tuple[TopicSection, Statement]]:
        """Yield every statement with its section, in the order of the profile."""
        for section in self.topics:
            for statement in section.statements:
                yield section, statement

    def transcript_ids(self) -> frozenset[str]:
        """Return the transcripts that anything in it is quoted from."""
        quotes = (q for _, s in self.statements() for q in (*s.support, *s.contradictions))
        return frozenset(quote.transcript_id for quote in quotes)


def profile_schema() -> dict[str, Any]:
    """Return the JSON Schema of a profile as it is written."""
    schema = Profile.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "urn:lorry:profile:2", **schema}


def schema_text() -> str:
    """Return the text of ``docs/profile.schema.json``."""
    return json.dumps(profile_schema(), indent=2, ensure_ascii=False) + "\n"
