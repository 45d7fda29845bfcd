"""Trainings and what happens to them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from lorry.client.results.result import Result


class Training(Result):
    """One training of a user's adapter; `wish` is what was asked of it and not granted yet."""

    id: str
    user_id: str
    adapter: str
    state: str
    phase: str
    wish: str
    why: str
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


class TrainingDetails(Training):
    """One training; `dataset` counts what it is trained on, and what was found in that, once it is built."""

    dataset: dict[str, Any] | None = None


class TrainingEntry(Result):
    """Something that has happened to a training; ids grow."""

    id: int
    at: datetime
    kind: str
    detail: dict[str, Any]


class TrainingEvent(Result):
    """What a training that is watched tells: an `event` with an id to go on from, its `progress`, or its `end`."""

    name: str
    data: Any
    id: int | None = None
