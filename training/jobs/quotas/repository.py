"""The SQL of quotas. Nothing here commits."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from training.jobs.dispatch import Quota
from training.jobs.models import QuotaRow


class QuotaRepository:
    """Reads and writes `training_quota` through one session."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def all(self) -> dict[str, Quota]:
        """Return every tenant's quota; a tenant without one is not there."""
        rows = (await self._session.execute(select(QuotaRow))).scalars()
        return {row.tenant: _quota(row) for row in rows}

    async def get(self, tenant: str, *, lock: bool = False) -> Quota:
        """Return the tenant's quota; without one, everything is unlimited. With `lock`, others who lock it wait."""
        row = await self._session.get(QuotaRow, tenant, populate_existing=True, with_for_update=lock or None)
        return _quota(row) if row else Quota()

    async def put(self, tenant: str, quota: Quota) -> None:
        """Set the tenant's quota."""
        values = {
            "max_running": quota.max_running,
            "max_daily": quota.max_daily,
            "max_monthly_dollars": quota.max_monthly_dollars,
        }
        statement = insert(QuotaRow).values(tenant=tenant, **values)
        await self._session.execute(statement.on_conflict_do_update(index_elements=["tenant"], set_=values))


def _quota(row: QuotaRow) -> Quota:
    return Quota(max_running=row.max_running, max_daily=row.max_daily, max_monthly_dollars=row.max_monthly_dollars)
