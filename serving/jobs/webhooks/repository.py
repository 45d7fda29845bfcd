"""The SQL of webhooks' messages. Nothing here commits."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from serving.jobs.models import DeliveryRow
from serving.jobs.states import DeliveryState


class DeliveryRepository:
    """Reads and writes `extraction_webhook` through one session."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def claim(self, *, within: timedelta) -> DeliveryRow | None:
        """Return a message that is due, as the caller's to send; it is due again for everybody after `within`."""
        due = (
            select(DeliveryRow.batch_id)
            .where(DeliveryRow.state == DeliveryState.PENDING, DeliveryRow.not_before <= func.clock_timestamp())
            .order_by(DeliveryRow.not_before)
            .limit(1)
            .with_for_update(skip_locked=True)
            .scalar_subquery()
        )
        statement = (
            update(DeliveryRow)
            .where(DeliveryRow.batch_id == due)
            .values(attempts=DeliveryRow.attempts + 1, not_before=func.clock_timestamp() + within)
            .returning(DeliveryRow)
        )
        return (await self._session.execute(statement)).scalars().one_or_none()

    async def note(self, batch_id: str, *, attempt: int, values: Mapping[str, Any]) -> bool:
        """Write down what became of an attempt; False when a later one has begun."""
        statement = (
            update(DeliveryRow)
            .where(DeliveryRow.batch_id == batch_id, DeliveryRow.attempts == attempt)
            .where(DeliveryRow.state == DeliveryState.PENDING)
            .values(**values)
            .returning(DeliveryRow.batch_id)
        )
        return (await self._session.execute(statement)).first() is not None

    async def after(self, pause: timedelta) -> Any:
        """Return the moment that is so far from now."""
        return (await self._session.execute(select(func.clock_timestamp() + pause))).scalar_one()

    async def pending(self) -> int:
        """Return how many messages are not delivered yet."""
        query = select(func.count()).where(DeliveryRow.state == DeliveryState.PENDING)
        return int((await self._session.execute(query)).scalar_one())
