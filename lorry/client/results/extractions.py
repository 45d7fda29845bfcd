"""Batch extractions and their results."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from lorry.client.results.result import Result

ExtractionState = Literal["queued", "running", "paused", "done", "canceled", "failed"]
Only = Literal["all", "stale"]


class ExtractionSelection(Result):
    """Who was asked for; a list of users is not repeated."""

    everybody: bool
    only: str
    max_age_days: float | None


class ExtractionProgress(Result):
    """How far a batch is, in users; rate and rest are None while they are not known."""

    users: int
    waiting: int
    in_hand: int
    done: int
    failed: int
    skipped: int
    canceled: int
    users_per_minute: float | None
    eta_seconds: float | None


class ExtractionFailure(Result):
    """Why something could not be done."""

    code: str
    message: str


class ExtractionWebhook(Result):
    """What becomes of the message that a batch has ended."""

    url: str
    state: str | None
    attempts: int
    problem: str | None


class Extraction(Result):
    """One batch extraction; `failures` counts users by reason."""

    id: str
    state: str
    selection: ExtractionSelection
    progress: ExtractionProgress
    failures: dict[str, int]
    error: ExtractionFailure | None
    webhook: ExtractionWebhook | None
    submitted_at: datetime
    planned_at: datetime | None
    ended_at: datetime | None

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.ended_at is not None


class ExtractionResult(Result):
    """What came of one user of a batch; `sequence` counts from 1 and is where to read on.

    `profile` is the document of docs/profile.schema.json; None where `error` says why there is none, or where
    `withheld` names the scope that the API key lacks.
    """

    sequence: int
    user_id: str
    status: Literal["done", "failed", "skipped"]
    version: int | None
    version_id: str | None
    ended_at: datetime | None
    error: ExtractionFailure | None
    profile: dict[str, Any] | None
    withheld: str | None = None
