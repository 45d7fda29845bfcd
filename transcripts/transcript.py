"""What one conversation is, whatever it came from.

Laws: a transcript's `id` depends only on its turns, so the same conversation imported twice, or
from two formats, is one transcript; ``Transcript.from_json(t.to_json()) == t``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Literal

from kit.canonical import sha256_json_items

Role = Literal["user", "other"]


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What one speaker said at once.

    `role` is ``user`` for the person whose adapter is trained, ``other`` for anybody else, human or
    assistant. `time` is aware (UTC) or None where the source has none.
    """

    role: Role
    text: str
    time: datetime | None = None

    def __post_init__(self) -> None:
        """Bring `time` to UTC, so that equal moments have equal digests; ValueError for one without a zone."""
        if self.time is not None:
            if self.time.tzinfo is None:
                raise ValueError("a turn's time must have a time zone")
            object.__setattr__(self, "time", self.time.astimezone(UTC))


@dataclass(frozen=True, kw_only=True)
class Transcript:
    """One conversation: ordered turns, at least one of them the user's."""

    turns: tuple[Turn, ...]
    source_format: str = field(compare=False)
    title: str = field(default="", compare=False)

    @cached_property
    def id(self) -> str:
        """32 hexadecimal digits of the digest of the turns' roles, texts and times."""
        return sha256_json_items(_turn_to_json(turn) for turn in self.turns)[:32]

    @property
    def started_at(self) -> datetime | None:
        """The first known time of any turn."""
        return min((turn.time for turn in self.turns if turn.time), default=None)

    @property
    def user_turns(self) -> tuple[Turn, ...]:
        """The user's own turns, in order."""
        return tuple(turn for turn in self.turns if turn.role == "user")

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, which `from_json` reads."""
        return {
            "id": self.id,
            "source_format": self.source_format,
            "title": self.title,
            "turns": [_turn_to_json(turn) for turn in self.turns],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Transcript:
        """Rebuild what `to_json` wrote."""
        turns = tuple(
            Turn(role=t["role"], text=t["text"], time=datetime.fromisoformat(t["time"]) if t["time"] else None)
            for t in value["turns"]
        )
        return cls(turns=turns, source_format=value["source_format"], title=value["title"])


def _turn_to_json(turn: Turn) -> dict[str, Any]:
    return {"role": turn.role, "text": turn.text, "time": turn.time.isoformat() if turn.time else None}
