"""What one person did to one fact of a profile."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from serving.extraction.profile.profile import Statement

Kind = Literal["edit", "confirm", "forbid"]


@dataclass(frozen=True, kw_only=True)
class Correction:
    """An edit, a confirmation or a prohibition; in force until it is withdrawn or replaced.

    Attributes:
        id: of this correction.
        kind: what was done.
        fact_id: the fact as it stood.
        text: the statement as it stood, or what is forbidden although nothing states it yet.
        topic: where it stands; None for what is forbidden everywhere.
        statement: what an edit puts in its place, or what was confirmed; None for what is forbidden.
        made_by: who did it.
        made_at: when.
        withdrawn_by: who withdrew or replaced it; None while it is in force.
        withdrawn_at: when; None while it is in force.
    """

    id: int
    kind: Kind
    fact_id: str
    text: str
    topic: str | None
    statement: Statement | None
    made_by: str
    made_at: datetime
    withdrawn_by: str | None = None
    withdrawn_at: datetime | None = None

    @property
    def is_in_force(self) -> bool:
        """Whether profiles show it."""
        return self.withdrawn_at is None
