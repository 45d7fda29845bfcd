"""Which waiting jobs are handed to workers next: priorities, tenants' quotas, free slots. Plain code, no database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from training.jobs.states import Phase


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A queued job, as far as its turn depends on it; a higher priority comes first."""

    id: str
    tenant: str
    phase: Phase
    priority: int
    submitted_at: datetime
    started: bool = False


@dataclass(frozen=True, kw_only=True)
class Quota:
    """What one tenant may use; None = as much as there is.

    `max_running` jobs at once, `max_daily` jobs submitted in 24 hours, `max_monthly_dollars` paid to question writers
    in 30 days.
    """

    max_running: int | None = None
    max_daily: int | None = None
    max_monthly_dollars: float | None = None


def choose(
    waiting: Sequence[Waiting],
    *,
    free: Mapping[Phase, int],
    running: Mapping[str, int],
    quotas: Mapping[str, Quota],
) -> list[Waiting]:
    """Return the jobs to hand over now, in order.

    Order: priority; then tenants that have least running, so that one tenant's thousand users do not hold up
    another's one; then jobs that were begun before; then age. A tenant at its quota is passed over, not waited for.

    Args:
        waiting: every job whose turn may have come.
        free: slots that no job holds, by phase.
        running: jobs that workers hold now, by tenant.
        quotas: by tenant; one that is missing is unlimited.
    """
    slots, held = Counter(dict(free)), Counter(dict(running))
    candidates = sorted(waiting, key=lambda job: (not job.started, job.submitted_at, job.id))
    chosen: list[Waiting] = []
    while True:
        open_ = [
            job for job in candidates if slots[job.phase] > 0 and _may_run(quotas.get(job.tenant), held[job.tenant])
        ]
        if not open_:
            return chosen
        best = min(open_, key=lambda job: (-job.priority, held[job.tenant]))  # stable: ties keep their order
        candidates.remove(best)
        chosen.append(best)
        slots[best.phase] -= 1
        held[best.tenant] += 1


def _may_run(quota: Quota | None, held: int) -> bool:
    return quota is None or quota.max_running is None or held < quota.max_running
