"""The SQL of tenants' rules. Nothing here commits."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from training.jobs.models import RulesRow
from training.jobs.staleness import Rules


class RulesRepository:
    """Reads and writes `training_rules` through one session."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def get(self, tenant: str) -> Rules:
        """Return the tenant's rules; without any, nobody is trained unasked."""
        row = await self._session.get(RulesRow, tenant, populate_existing=True)
        return Rules(**row.rules) if row else Rules()

    async def put(self, tenant: str, rules: Rules) -> None:
        """Set the tenant's rules."""
        values = {"rules": asdict(rules), "checked_at": None}
        statement = insert(RulesRow).values(tenant=tenant, **values)
        await self._session.execute(statement.on_conflict_do_update(index_elements=["tenant"], set_=values))

    async def all(self) -> dict[str, Rules]:
        """Return every tenant's rules."""
        return {row.tenant: Rules(**row.rules) for row in (await self._session.execute(select(RulesRow))).scalars()}

    async def checked(self, tenant: str) -> None:
        """Write down that the tenant's users were looked at now."""
        await self._session.execute(update(RulesRow).where(RulesRow.tenant == tenant).values(checked_at=func.now()))
