"""What an erasure has done."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from lorry.client.results.result import Result


class StoreErasure(Result):
    """One store: what lay there by kind, what keeps it from being done, and how it went."""

    store: str
    state: str
    found: dict[str, int] = Field(default_factory=dict)
    waits_for: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    attempts: int = 0
    began_at: datetime | None = None
    looked_at: datetime | None = None
    ended_at: datetime | None = None


class Erasure(Result):
    """The erasure of one user, store by store; the user is not named in it."""

    id: str
    state: str
    asked_by: str
    asked_at: datetime
    ended_at: datetime | None
    stores: tuple[StoreErasure, ...]

    @property
    def ended(self) -> bool:
        """Whether nothing is left anywhere."""
        return self.ended_at is not None

    @property
    def waits_for(self) -> tuple[str, ...]:
        """Everything that has not answered yet, with its store."""
        return tuple(f"{each.store}: {why}" for each in self.stores for why in each.waits_for)
