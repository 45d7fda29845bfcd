"""The SQL of what an on-call engineer is told of trainings. Counts and shares alone: no tenant, no user, no id."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from training.jobs.costs.repository import MONTH
from training.jobs.models import CampaignRow, CampaignUserRow, CostRow, JobRow, QuotaRow
from training.jobs.states import State

RECENT = timedelta(hours=1)
_DAY = timedelta(days=1)
_GRACE = timedelta(hours=1)
_REASONS = 20  # codes are names of our own errors; more than a few at once say nothing


@dataclass(frozen=True, kw_only=True)
class Health:
    """What is wrong with a database's trainings.

    `failures` counts jobs that failed in the last hour by their error's code; `poison_users` whose jobs were given up
    in the last day because workers died under them; `stalled_campaigns` those that run, have somebody waiting, and have
    begun nothing for an hour longer than their rate says; `spent_share` is the largest share, of all tenants with a
    limit, of the month's dollars that is spent.
    """

    failures: dict[str, int]
    poison_users: int
    stalled_campaigns: int
    spent_share: float


class HealthRepository:
    """Reads the tables of trainings through one session."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def examine(self) -> Health:
        """Return how trainings fare now."""
        return Health(
            failures=await self._failures(),
            poison_users=await self._poison_users(),
            stalled_campaigns=await self._stalled_campaigns(),
            spent_share=await self._spent_share(),
        )

    async def _failures(self) -> dict[str, int]:
        reason = func.coalesce(JobRow.error["code"].astext, "unknown")
        query = (
            select(reason, func.count())
            .where(JobRow.state == State.FAILED, JobRow.ended_at > func.now() - RECENT)
            .group_by(reason)
            .order_by(func.count().desc(), reason)
            .limit(_REASONS)
        )
        return {row[0]: row[1] for row in await self._session.execute(query)}

    async def _poison_users(self) -> int:
        query = select(func.count(tuple_(JobRow.tenant, JobRow.user_id).distinct())).where(
            JobRow.state == State.FAILED,
            JobRow.ended_at > func.now() - _DAY,
            JobRow.error["code"].astext == "workers-died",
        )
        return int((await self._session.execute(query)).scalar_one())

    async def _stalled_campaigns(self) -> int:
        last = func.coalesce(func.max(CampaignUserRow.submitted_at), CampaignRow.created_at)
        waiting = func.count().filter(CampaignUserRow.job_id.is_(None), CampaignUserRow.skipped.is_(None))
        turn = func.make_interval(0, 0, 0, 0, 0, 0, 3600.0 / CampaignRow.per_hour)
        stalled = (
            select(CampaignRow.id)
            .join(CampaignUserRow, CampaignUserRow.campaign_id == CampaignRow.id)
            .where(CampaignRow.state == "running")
            .group_by(CampaignRow.id)
            .having(waiting > 0, last + turn + _GRACE < func.now())
            .subquery()
        )
        return int((await self._session.execute(select(func.count()).select_from(stalled))).scalar_one())

    async def _spent_share(self) -> float:
        """Leave out tenants that may spend nothing: they are not about to be surprised."""
        spent = (
            select(func.coalesce(func.sum(CostRow.dollars), 0.0))
            .where(CostRow.tenant == QuotaRow.tenant, CostRow.is_estimate.is_(False), CostRow.at > func.now() - MONTH)
            .scalar_subquery()
        )
        share = func.coalesce(spent / func.nullif(QuotaRow.max_monthly_dollars, 0.0), 0.0)
        query = select(func.coalesce(func.max(share), 0.0)).where(QuotaRow.max_monthly_dollars.is_not(None))
        return float((await self._session.execute(query)).scalar_one())
