"""What travels of transcripts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from kit.names import Name
from transcripts.transcript import Transcript, Turn

SOURCE_FORMAT = "api"
_MAX_TURNS = 20_000
Text = Annotated[str, Field(max_length=1_000_000)]


def _in_utc(time: datetime) -> datetime:
    """Return a time in UTC, which the first and the last day of the calendar may not have."""
    try:
        return time.astimezone(UTC)
    except OverflowError as exc:
        raise ValueError("must be a time from year 1 to 9999, in UTC as well") from exc


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]


class TurnBody(BaseModel):
    """What one speaker said at once."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["user", "other"] = Field(description="`user` for whom the adapter is about; `other` for anybody else")
    text: Text
    time: Moment | None = Field(None, description="when it was said, with its time zone")


class TranscriptBody(BaseModel):
    """One conversation, as a caller puts it."""

    model_config = ConfigDict(extra="forbid")

    title: str = Field("", max_length=200)
    turns: list[TurnBody] = Field(
        min_length=1, max_length=_MAX_TURNS, description="in order; at least one is the user's"
    )

    def to_transcript(self) -> Transcript:
        """Return the transcript that this is."""
        turns = tuple(Turn(role=turn.role, text=turn.text, time=turn.time) for turn in self.turns)
        return Transcript(turns=turns, source_format=SOURCE_FORMAT, title=self.title)


class TranscriptLine(TranscriptBody):
    """One line of a bulk upload."""

    id: Name = Field(description="the caller's own name of the transcript")


class TranscriptHead(BaseModel):
    """One transcript without its turns. `id` is the digest of its turns, `names` what callers call it."""

    id: str
    names: list[str]
    title: str
    source_format: str
    started_at: AwareDatetime | None
    imported_at: AwareDatetime
    turns: int
    user_turns: int


class TranscriptPut(BaseModel):
    """What came of putting a transcript; `created` is false when the user had this conversation already."""

    id: str
    name: str
    created: bool


class TurnView(BaseModel):
    """What one speaker said at once, however long."""

    role: Literal["user", "other"]
    text: str
    time: AwareDatetime | None


class TranscriptView(BaseModel):
    """One transcript with its turns."""

    id: str
    names: list[str]
    title: str
    source_format: str
    turns: list[TurnView]

    @classmethod
    def of(cls, transcript: Transcript, *, names: list[str]) -> TranscriptView:
        """Return the view of a transcript."""
        turns = [TurnView(role=turn.role, text=turn.text, time=turn.time) for turn in transcript.turns]
        return cls(
            id=transcript.id,
            names=names,
            title=transcript.title,
            source_format=transcript.source_format,
            turns=turns,
        )


class TranscriptPage(BaseModel):
    """Transcripts as they were imported; `next_cursor` is null on the last page."""

    transcripts: list[TranscriptHead]
    next_cursor: str | None


class WholeTranscriptPage(BaseModel):
    """Transcripts with their turns; `next_cursor` is null on the last page."""

    transcripts: list[TranscriptView]
    next_cursor: str | None


class Deleted(BaseModel):
    """What came of deleting all of a user's transcripts."""

    deleted: int


class RefusedLine(BaseModel):
    """A line of a bulk upload that was not taken; lines count from 1."""

    line: int
    field: str
    reason: str


class BulkResult(BaseModel):
    """What came of a bulk upload: conversations that are new or were known, and lines that were refused."""

    created: int
    known: int
    refused: list[RefusedLine] = Field(description="at most 1000; the others were taken all the same")
    refused_count: int
