"""One batch, as callers see it, and what makes one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from serving.jobs.models import BatchRow, DeliveryRow
from serving.jobs.progress import Progress
from serving.jobs.selection import Selection
from serving.jobs.states import ENDED, BatchState, DeliveryState


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What somebody wants extracted."""

    tenant: str
    selection: Selection
    webhook_url: str | None = None


@dataclass(frozen=True, kw_only=True)
class Webhook:
    """What becomes of the message that a batch has ended."""

    url: str
    state: DeliveryState | None
    attempts: int
    problem: str | None


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One batch and how far it is; `failures` are counts of users by reason, without names."""

    id: str
    tenant: str
    state: BatchState
    selection: dict[str, Any]
    progress: Progress
    failures: dict[str, int]
    error: dict[str, Any] | None
    webhook: Webhook | None
    submitted_at: datetime
    planned_at: datetime | None
    ended_at: datetime | None

    @property
    def ended(self) -> bool:
        """Whether nothing of it changes any more."""
        return self.state in ENDED

    @classmethod
    def of(cls, row: BatchRow, *, progress: Progress, failures: dict[str, int], delivery: DeliveryRow | None) -> Batch:
        """Return the batch that rows describe."""
        return cls(
            id=row.id,
            tenant=row.tenant,
            state=BatchState(row.state),
            selection=row.selection,
            progress=progress,
            failures=failures,
            error=row.error,
            webhook=_webhook(row, delivery),
            submitted_at=row.submitted_at,
            planned_at=row.planned_at,
            ended_at=row.ended_at,
        )


def _webhook(row: BatchRow, delivery: DeliveryRow | None) -> Webhook | None:
    if row.webhook_url is None:
        return None
    return Webhook(
        url=row.webhook_url,
        state=DeliveryState(delivery.state) if delivery else None,
        attempts=delivery.attempts if delivery else 0,
        problem=delivery.problem if delivery else None,
    )
