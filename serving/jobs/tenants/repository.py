"""The SQL of what tenants may have in batches. Nothing here commits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from serving.jobs.models import TenantRow


class TenantRepository:
    """Reads and writes `extraction_tenant` through one session."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def get(self, tenant: str) -> TenantRow | None:
        """Return what was said of a tenant; None when nothing was, so that the defaults hold."""
        query = select(TenantRow).where(TenantRow.tenant == tenant).execution_options(populate_existing=True)
        return (await self._session.execute(query)).scalars().one_or_none()

    async def put(self, tenant: str, values: Mapping[str, Any]) -> None:
        """Change what was said of a tenant."""
        statement = insert(TenantRow).values(tenant=tenant, **values)
        await self._session.execute(
            statement.on_conflict_do_update(index_elements=["tenant"], set_=dict(values))
            if values
            else statement.on_conflict_do_nothing()
        )

    async def rotate(self, tenant: str) -> None:
        """Begin the next generation of the tenant's webhook secret."""
        statement = insert(TenantRow).values(tenant=tenant, secret_generation=1, rotated_at=func.clock_timestamp())
        next_ = {"secret_generation": TenantRow.secret_generation + 1, "rotated_at": func.clock_timestamp()}
        await self._session.execute(statement.on_conflict_do_update(index_elements=["tenant"], set_=next_))

    async def rotated_seconds_ago(self, tenant: str) -> float | None:
        """Return how long the present secret has been in force; None when it is the first."""
        age = func.extract("epoch", func.clock_timestamp() - TenantRow.rotated_at)
        seconds = (await self._session.execute(select(age).where(TenantRow.tenant == tenant))).scalar_one_or_none()
        return None if seconds is None else float(seconds)
