"""Sums of what trainings cost, for people."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from kit.database import Database
from training.jobs.costs.repository import CostRepository
from training.jobs.errors import JobRequestInvalid

_MAX_DAYS = 36_500
_BY = ("tenant", "user_id", "job_id", "kind")


class Costs:
    """What every training of one database costs, before and after."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def sums(
        self,
        *,
        tenant: str | None = None,
        user: str | None = None,
        job_id: str | None = None,
        by: str = "tenant",
        days: float = 30,
    ) -> list[dict[str, Any]]:
        """Return sums of tokens, dollars and device seconds; estimates and what was spent apart.

        `by` is ``tenant``, ``user_id``, ``job_id`` or ``kind`` (the stage that cost).

        Raises:
            JobRequestInvalid: sums cannot be made by that, or of so many days.
        """
        if by not in _BY:
            raise JobRequestInvalid(f"by must be one of {', '.join(_BY)} (got {by!r})", field="by")
        if not 0 <= days <= _MAX_DAYS:
            raise JobRequestInvalid(f"days must be from 0 to {_MAX_DAYS} (got {days:g})", field="days")
        async with self._database.reading() as session:
            return await CostRepository(session).sums(
                tenant=tenant, user=user, job_id=job_id, since=timedelta(days=days), by=by
            )
