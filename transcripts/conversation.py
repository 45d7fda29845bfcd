"""One conversation as a format reads it, before it is known which speaker is the user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from transcripts.errors import TranscriptTooLarge, TranscriptUnreadable
from transcripts.tally import Reason

_TITLE_CHARACTERS = 200


@dataclass(frozen=True, kw_only=True)
class Message:
    """What one speaker, named as the source names them, said at once."""

    speaker: str
    text: str
    time: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """The people's and the assistant's messages in order, without system or tool traffic.

    `source` and `line` say where it starts, for error messages. `dropped` counts what the format left out of it.
    `is_account` marks what the user says of themselves apart from any conversation (custom instructions).
    `too_large` is the refusal of one that is larger than the limit and was passed over: there are no messages of it.
    """

    source: str
    line: int
    messages: tuple[Message, ...]
    title: str = ""
    dropped: Mapping[Reason, int] = field(default_factory=dict)
    is_account: bool = False
    too_large: TranscriptTooLarge | None = None


class Place:
    """A value inside a file: what errors about it name. ``place / "messages" / 3`` goes down."""

    # One is made for every field of every message, so it is kept light: no dataclass, and the path is
    # put together only for an error.
    __slots__ = ("_above", "_step", "line", "source")

    def __init__(self, source: str, line: int, step: str | int = "", above: Place | None = None) -> None:
        self.source = source
        self.line = line
        self._step = step
        self._above = above

    def __truediv__(self, step: str | int) -> Place:
        """Return the place of a member or element of this value."""
        return Place(self.source, self.line, step, self)

    @property
    def path(self) -> str:
        """The steps from the record to the value: ``messages[3].role``; empty for the record itself."""
        above = self._above.path if self._above else ""
        if isinstance(self._step, int):
            return f"{above}[{self._step}]"
        return f"{above}.{self._step}" if above else self._step

    def refuse(self, reason: str) -> TranscriptUnreadable:
        """Return the error that says why this value cannot be taken."""
        path = self.path.encode(errors="backslashreplace").decode()
        return TranscriptUnreadable(
            f"{self.source}, line {self.line}: {path or 'the record'} {reason}",
            field=f"{self.source}:{self.line}" + (f":{path}" if path else ""),
        )


def require_dict(value: Any, place: Place) -> dict[str, Any]:
    """Return `value`, an object; refuse anything else."""
    if not isinstance(value, dict):
        raise place.refuse(f"must be an object, not {_kind(value)}")
    return value


def require_list(value: Any, place: Place) -> list[Any]:
    """Return `value`, an array; refuse anything else."""
    if not isinstance(value, list):
        raise place.refuse(f"must be an array, not {_kind(value)}")
    return value


def require_text(value: Any, place: Place) -> str:
    """Return `value`, a string, with LF line ends and no white space around it.

    Refuses what PostgreSQL and UTF-8 cannot hold (NUL, lone surrogates) rather than changing what
    somebody said.
    """
    if not isinstance(value, str):
        raise place.refuse(f"must be a string, not {_kind(value)}")
    if (reason := unfit(value)) is not None:
        raise place.refuse(reason)
    return value.replace("\r\n", "\n").strip()


def unfit(text: str) -> str | None:
    """Return why `text` can be neither stored nor digested; None when it can."""
    if "\0" in text:
        return "holds a NUL character, which text may not"
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        return f"holds half of a surrogate pair at character {exc.start}"
    return None


def optional_time(value: Any, place: Place) -> datetime | None:
    """Return an ISO 8601 string or seconds since 1970 as UTC; None stays None. A time without zone is UTC."""
    if value is None:
        return None
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
        if isinstance(value, str):
            found = datetime.fromisoformat(value.strip())
            return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError, OSError) as exc:
        raise place.refuse("is not a time: ISO 8601 or seconds since 1970") from exc
    raise place.refuse(f"must be a time (ISO 8601 or seconds since 1970), not {_kind(value)}")


def optional_title(value: Any) -> str:
    """Return a title of at most 200 characters on one line; nothing for what is not a fit string."""
    if not isinstance(value, str) or unfit(value) is not None:
        return ""
    return " ".join(value.split())[:_TITLE_CHARACTERS]


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "an array", str: "a string", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")
