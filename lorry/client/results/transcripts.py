"""Transcripts, and what came of putting them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from lorry.client.results.result import Result


class Turn(Result):
    """What one speaker said at once: the user, or anybody else."""

    role: Literal["user", "other"]
    text: str
    time: datetime | None = None


class TranscriptHead(Result):
    """One transcript without its turns; `id` is its digest, `names` what its callers call it."""

    id: str
    names: list[str]
    title: str
    source_format: str
    started_at: datetime | None
    imported_at: datetime
    turns: int
    user_turns: int


class Transcript(Result):
    """One conversation. To put one, `name` and `turns` are enough."""

    name: str = ""
    turns: list[Turn]
    title: str = ""
    id: str = ""
    names: list[str] = Field(default_factory=list)
    source_format: str = ""


class RefusedLine(Result):
    """A transcript that was not taken; `line` counts from 1 in the order in which they were given."""

    line: int
    field: str
    reason: str


class BulkResult(Result):
    """What came of putting many transcripts."""

    created: int = 0
    known: int = 0
    refused: list[RefusedLine] = Field(default_factory=list)
    refused_count: int = 0
