"""What calls return. A newer gateway may say more than a client knows: what is unknown is left out."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Result(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class AdapterVersion(_Result):
    """The version of an adapter that answered."""

    version: int
    version_id: str


class Answer(_Result):
    """The answer to a question: text, or JSON when a schema was given; `adapter` None = the base answered."""

    answer: Any
    truncated: bool
    adapter: AdapterVersion | None
    fallback: Literal["profile"] | None = None


class ChatAnswer(_Result):
    """A chat completion; `text` is its first choice, `completion` all of it as OpenAI's API says it."""

    text: str
    adapter_version: int | None
    completion: dict[str, Any]


class Profile(_Result):
    """A user's profile: the document of docs/profile.schema.json, and the version of the adapter that was asked."""

    document: dict[str, Any]
    adapter_version: int | None
    etag: str


class Turn(_Result):
    """What one speaker said at once: the user, or anybody else."""

    role: Literal["user", "other"]
    text: str
    time: datetime | None = None


class TranscriptHead(_Result):
    """One transcript without its turns; `id` is its digest, `names` what its callers call it."""

    id: str
    names: list[str]
    title: str
    source_format: str
    started_at: datetime | None
    imported_at: datetime
    turns: int
    user_turns: int


class Transcript(_Result):
    """One conversation. To put one, `name` and `turns` are enough."""

    name: str = ""
    turns: list[Turn]
    title: str = ""
    id: str = ""
    names: list[str] = Field(default_factory=list)


class RefusedLine(_Result):
    """A transcript that was not taken; `line` counts from 1 in the order in which they were given."""

    line: int
    field: str
    reason: str


class BulkResult(_Result):
    """What came of putting many transcripts."""

    created: int = 0
    known: int = 0
    refused: list[RefusedLine] = Field(default_factory=list)
    refused_count: int = 0


class Training(_Result):
    """One training of a user's adapter."""

    id: str
    user_id: str
    adapter: str
    state: str
    phase: str
    progress: dict[str, Any] | None
    error: dict[str, Any] | None
    outcome: dict[str, Any] | None
    submitted_at: datetime
    started_at: datetime | None
    ended_at: datetime | None

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.ended_at is not None


class TrainingEvent(_Result):
    """Something that happened to a training: an `event`, its `progress`, or its `end`."""

    name: str
    data: Any


class Usage(_Result):
    """What one user's adapter was asked on one day; `user_id` None = all of the tenant's."""

    day: date
    user_id: str | None
    requests: int
    prompt_tokens: int
    completion_tokens: int
