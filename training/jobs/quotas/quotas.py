"""What every tenant may use, and whether it may submit one more training."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from kit.database import Database
from kit.names import check_name
from training.jobs.costs.repository import CostRepository
from training.jobs.dispatch import Quota
from training.jobs.errors import JobRequestInvalid, QuotaExhausted
from training.jobs.quotas.repository import QuotaRepository
from training.jobs.repository import JobRepository

_DAY = timedelta(days=1)


class Quotas:
    """Every tenant's quota in one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, tenant: str) -> Quota:
        """Return what the tenant may use."""
        async with self._database.reading() as session:
            return await QuotaRepository(session).get(check_name(tenant, field="tenant"))

    async def put(self, tenant: str, quota: Quota) -> Quota:
        """Set what the tenant may use.

        Raises:
            JobRequestInvalid: a limit is negative.
        """
        check_name(tenant, field="tenant")
        for name, value in asdict(quota).items():
            if value is not None and not 0 <= value < 1 << 31:
                raise JobRequestInvalid(f"{name} must be a number of at least 0 (got {value})", field=name)
        async with self._database.transaction() as session:
            await QuotaRepository(session).put(tenant, quota)
        return quota


async def require_quota(session: AsyncSession, tenant: str) -> None:
    """Return when the tenant may submit one more job; the others of its submissions wait until this one is through.

    Raises:
        QuotaExhausted: its day or month is used up.
    """
    quota = await QuotaRepository(session).get(tenant, lock=True)
    if quota.max_daily is not None and await JobRepository(session).submitted_since(tenant, _DAY) >= quota.max_daily:
        raise QuotaExhausted(
            f"{tenant} has submitted the {quota.max_daily} trainings of its day: wait, or have max_daily raised",
            field="max_daily",
        )
    if quota.max_monthly_dollars is not None:
        spent = await CostRepository(session).spent_dollars(tenant)
        if spent >= quota.max_monthly_dollars:
            raise QuotaExhausted(
                f"{tenant} has spent {spent:.2f} of {quota.max_monthly_dollars:.2f} dollars in 30 days: wait, or have"
                " max_monthly_dollars raised",
                field="max_monthly_dollars",
            )
