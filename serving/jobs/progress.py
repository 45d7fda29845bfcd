"""How far a batch is, and how long it will take: from what was measured of this batch, or not said at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

WINDOW = 64
"""Deliveries that the rate is measured over."""
_LEAST = 3


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a batch is, in users.

    `users_per_minute` is measured over the latest deliveries since the batch began or was resumed; `eta_seconds` is
    what is left at that rate. Both are None until enough was measured, and while the batch does not go on.
    """

    users: int
    waiting: int
    in_hand: int
    done: int
    failed: int
    skipped: int
    canceled: int
    users_per_minute: float | None = None
    eta_seconds: float | None = None


def measure_rate(ended: Sequence[datetime], *, since: datetime, now: datetime) -> float | None:
    """Return users a second; None when too few have come to an end to tell.

    The window reaches from the delivery before the counted ones, or from `since`, to now: a batch in which nothing
    comes to an end any more slows down, instead of keeping the rate that it had.

    Args:
        ended: when the latest users ended that took work, at most `WINDOW` of them, in any order.
        since: when the batch began, or was resumed last.
        now: the same clock's time.
    """
    counted = sorted(moment for moment in ended if moment > since)
    if len(counted) < _LEAST:
        return None
    start = since if len(counted) < WINDOW else counted.pop(0)
    seconds = (now - start).total_seconds()
    return len(counted) / seconds if seconds > 0 else None


def estimate(remaining: int, rate: float | None) -> float | None:
    """Return the seconds that so many users take at this rate; None when it is not known."""
    if remaining == 0:
        return 0.0
    return None if not rate else remaining / rate
