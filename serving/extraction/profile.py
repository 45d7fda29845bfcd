"""What a profile is: statements with the words that back them, and measured patterns.

The JSON Schema in ``docs/profile.schema.json`` is generated from these models (``python -m
serving.extraction.profile``). Laws: ``Profile.model_validate_json(p.to_bytes()) == p``; a statement without
support cannot be built; a topic without statements says ``not_stated``.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from kit.names import Name
from registry.manifest import VersionId

SCHEMA_VERSION: Literal["lorry.profile/1"] = "lorry.profile/1"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Quote(_Frozen):
    """The person's own words; `quote` is a passage of that turn, letter for letter."""

    quote: str = Field(min_length=1)
    transcript_id: str
    turn: int = Field(ge=0, description="index of the turn in its transcript, from 0")
    time: datetime | None = Field(None, description="when it was written; null where the source did not say")


class Agreement(_Frozen):
    """How sure the adapter is: `k` said so of the `n` samples that answered the topics where it came up."""

    k: int = Field(ge=1)
    n: int = Field(ge=1)

    @model_validator(mode="after")
    def _part_of_whole(self) -> Self:
        if self.k > self.n:
            raise ValueError("agreement: k must not exceed n")
        return self


class Statement(_Frozen):
    """One thing that the adapter says about its user and that the user's own words back."""

    text: str = Field(min_length=1, max_length=400)
    wording: Literal["adapter", "user"] = Field(
        description="whose words `text` has: the adapter's, all of them found in each quote, or the user's own clause"
    )
    agreement: Agreement
    support: tuple[Quote, ...] = Field(min_length=1, description="passages that say the same")
    contradictions: tuple[Quote, ...] = Field((), description="passages that say the opposite, the newest first")


class TopicSection(_Frozen):
    """Everything stated under one topic of the bank."""

    topic: str
    title: str
    statements: tuple[Statement, ...] = ()
    not_stated: bool = Field(description="true when nothing under this topic had support")

    @model_validator(mode="after")
    def _says_when_empty(self) -> Self:
        if self.not_stated == bool(self.statements):
            raise ValueError("not_stated must be true exactly when there are no statements")
        return self


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


class Asked(_Frozen):
    """How much was asked, and what came of it."""

    questions: int = Field(ge=0, description="wordings put to the adapter")
    samples: int = Field(ge=0, description="answers sampled altogether")
    unusable_answers: int = Field(ge=0, description="answers with nothing readable in them")
    unsupported_claims: int = Field(ge=0, description="distinct claims left out because nothing backs them")


class Profile(_Frozen):
    """Everything extraction writes about one user."""

    schema_version: Literal["lorry.profile/1"] = SCHEMA_VERSION
    user: Name
    adapter: AdapterVersion
    bank: BankVersion
    generated_at: datetime
    asked: Asked
    topics: tuple[TopicSection, ...]
    patterns: tuple[Pattern, ...] = ()

    def to_bytes(self) -> bytes:
        """Return indented UTF-8 JSON."""
        return (json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n").encode()


def profile_schema() -> dict[str, Any]:
    """Return the JSON Schema of a profile as it is written."""
    schema = Profile.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "urn:lorry:profile:1", **schema}


def schema_text() -> str:
    """Return the text of ``docs/profile.schema.json``."""
    return json.dumps(profile_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
