"""Whose user is taken in hand next, when several batches go on: plain code, no database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, kw_only=True)
class Runnable:
    """A batch with users whose turn may come, and how many of its users are in hand anywhere."""

    id: str
    tenant: str
    submitted_at: datetime
    held: int


def share(batches: Sequence[Runnable], *, free: int) -> dict[str, int]:
    """Return how many users of which batch to take in hand.

    Tenants share equally, so that one tenant's ten thousand users do not hold up another's ten; so do a tenant's
    batches, and among equals the older comes first. A batch may have fewer users left than it is given: what stays
    free then is shared out at the next look.
    """
    of_tenant, of_batch = Counter[str](), Counter({batch.id: batch.held for batch in batches})
    for batch in batches:
        of_tenant[batch.tenant] += batch.held
    given = Counter[str]()
    for _ in range(free if batches else 0):
        best = min(batches, key=lambda each: (of_tenant[each.tenant], of_batch[each.id], each.submitted_at, each.id))
        given[best.id] += 1
        of_tenant[best.tenant] += 1
        of_batch[best.id] += 1
    return dict(given)
