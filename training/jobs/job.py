"""A training as people see it: what they submit, what became of it, what happened on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from kit.names import check_name
from training.config import TrainingRequest, resolve
from training.errors import ConfigInvalid
from training.jobs.errors import JobRequestInvalid
from training.jobs.models import EventRow, JobRow
from training.jobs.states import ENDED, Phase, State, Trigger, Wish

DEFAULT_ADAPTER = "profile"
_MAX_PRIORITY = 1000


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What somebody wants trained; `settings` are those of ``lorry train --set``, by key.

    With `review`, the job waits, once its questions are written, until somebody has reviewed them and resumes it.
    """

    tenant: str
    user: str
    base: str
    adapter: str = DEFAULT_ADAPTER
    settings: Mapping[str, Any] = field(default_factory=dict)
    priority: int = 0
    trigger: Trigger = Trigger.MANUAL
    why: str = ""
    campaign_id: str | None = None
    review: bool = False

    def check(self) -> Submission:
        """Return this submission.

        Raises:
            InvalidName: tenant, user or adapter is no name.
            ConfigInvalid: naming a setting that does not exist or cannot have this value.
            JobRequestInvalid: the priority is out of range, or no base is named.
        """
        for name in ("tenant", "user", "adapter"):
            check_name(getattr(self, name), field="user_id" if name == "user" else name)
        if not -_MAX_PRIORITY <= self.priority <= _MAX_PRIORITY:
            raise JobRequestInvalid(f"priority must be from -{_MAX_PRIORITY} to {_MAX_PRIORITY}", field="priority")
        if not self.base.strip():
            raise JobRequestInvalid("base must name a base model", field="base")
        if "base" in self.settings:
            raise ConfigInvalid("base is a field of its own, not a setting", field="base")
        resolve(TrainingRequest(), arguments=self.settings)
        return self


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training as people see it; times are UTC, `progress` is `training.jobs.progress.Progress` as JSON."""

    id: str
    tenant: str
    user_id: str
    adapter: str
    base: str
    settings: dict[str, Any]
    trigger: Trigger
    why: str
    campaign_id: str | None
    review: bool
    priority: int
    state: State
    phase: Phase
    wish: Wish
    attempts: int
    crashes: int
    worker_id: str | None
    progress: dict[str, Any] | None
    error: dict[str, Any] | None
    outcome: dict[str, Any] | None
    submitted_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    not_before: datetime | None
    updated_at: datetime

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to it unless somebody retries it."""
        return self.state in ENDED

    @property
    def waits_for_review(self) -> bool:
        """Whether its questions are written, and nothing is done until somebody resumes it."""
        return self.review and self.state is State.PAUSED and self.phase is Phase.TRAIN and self.progress is None

    @classmethod
    def of(cls, row: JobRow) -> Job:
        """Return the job that a row holds."""
        return cls(
            id=row.id,
            tenant=row.tenant,
            user_id=row.user_id,
            adapter=row.adapter,
            base=row.base,
            settings=row.request.get("settings", {}),
            trigger=Trigger(row.trigger),
            why=row.request.get("why", ""),
            campaign_id=row.campaign_id,
            review=row.request.get("review", False),  # jobs of earlier releases do not say
            priority=row.priority,
            state=State(row.state),
            phase=Phase(row.phase),
            wish=Wish(row.wish),
            attempts=row.attempts,
            crashes=row.crashes,
            worker_id=row.worker_id,
            progress=row.progress,
            error=row.error,
            outcome=row.outcome,
            submitted_at=row.submitted_at,
            started_at=row.started_at,
            ended_at=row.ended_at,
            not_before=row.not_before,
            updated_at=row.updated_at,
        )


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened to a job; ids grow within a job."""

    id: int
    at: datetime
    kind: str
    detail: dict[str, Any]

    @classmethod
    def of(cls, row: EventRow) -> Event:
        """Return the event that a row holds."""
        return cls(id=row.id, at=row.at, kind=row.kind, detail=row.detail)
