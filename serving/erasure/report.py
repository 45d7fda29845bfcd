"""What an erasure has done, and what it still waits for: store by store, with no word of whom it is about."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

# In the order in which they are walked; `lorry.erasure` has one eraser for each, and docs/erasure.md a section.
STORES = (
    "intake",
    "jobs",
    "extractions",
    "transcripts",
    "profiles",
    "answers",
    "usage",
    "adapters",
    "batches",
    "trainings",
    "workers",
    "homes",
    "engines",
    "names",
    "database",
    "check",
)


class StoreReport(BaseModel):
    """One store. `found` counts what lay there when its turn came; `waits_for` says what keeps it from being done."""

    model_config = ConfigDict(frozen=True)

    store: str
    state: Literal["not begun", "waiting", "done"]
    found: dict[str, int] = Field(
        default_factory=dict, description="what lay there, by kind; all of it is gone when done"
    )
    waits_for: list[str] = Field(default_factory=list, description="engines, workers, batches … that have not answered")
    told: list[str] = Field(default_factory=list, description="how it went: by worker, home and engine")
    attempts: int = 0
    began_at: datetime | None = None
    looked_at: datetime | None = None
    ended_at: datetime | None = None


class ErasureReport(BaseModel):
    """One erasure; the user is not named in it, so that it can be kept when they are gone."""

    model_config = ConfigDict(frozen=True)

    id: str
    state: Literal["running", "done"]
    asked_by: str
    asked_at: datetime
    ended_at: datetime | None
    stores: list[StoreReport]

    @property
    def waits_for(self) -> list[str]:
        """Everything that is waited for, with its store."""
        return [f"{each.store}: {why}" for each in self.stores for why in each.waits_for]
