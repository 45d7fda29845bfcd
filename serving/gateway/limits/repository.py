"""The SQL of running gateways; every moment is the database's."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from serving.gateway.limits.models import GatewayCopyRow


class CopyRepository:
    """Reads and writes `gateway_copy` through one session."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def hear(self, copy_id: str) -> None:
        """Note that a gateway lives."""
        statement = insert(GatewayCopyRow).values(id=copy_id)
        again = statement.on_conflict_do_update(index_elements=["id"], set_={"heard_at": func.now()})
        await self._session.execute(again)

    async def count(self, *, within: timedelta) -> int:
        """Forget who was silent for longer, and return how many were not."""
        row = GatewayCopyRow
        await self._session.execute(delete(row).where(row.heard_at < func.now() - within))
        return int((await self._session.execute(select(func.count()).select_from(row))).scalar_one())

    async def leave(self, copy_id: str) -> None:
        """Note that a gateway has stopped."""
        await self._session.execute(delete(GatewayCopyRow).where(GatewayCopyRow.id == copy_id))
