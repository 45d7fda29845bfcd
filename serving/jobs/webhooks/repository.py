"""The SQL of webhooks' messages. Nothing here commits."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from serving.jobs.models import BatchRow, DeliveryRow
from serving.jobs.states import DeliveryState

# Of a URL that `check_url` has let through: it names no user, and a port is no other receiver.
_HOST = func.coalesce(func.lower(func.substring(BatchRow.webhook_url, r"^[A-Za-z]+://(\[[^\]]*\]|[^/?#:]*)")), "")


@dataclass(frozen=True, kw_only=True)
class Claimed:
    """A message to be sent now: the how manieth try it is, whose it is, and which host gets it."""

    batch_id: str
    attempt: int
    tenant: str
    host: str


class DeliveryRepository:
    """Reads and writes `extraction_webhook` through one session."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def claim(
        self, *, within: timedelta, but_tenants: Collection[str] = (), but_hosts: Collection[str] = ()
    ) -> Claimed | None:
        """Return the message that is due longest, as the caller's to send; it is due again for all after `within`.

        Args:
            within: how long the try may take, and some more.
            but_tenants: whose messages are passed over.
            but_hosts: receivers whose messages are passed over, as `Claimed.host` names them.
        """
        due = (
            select(DeliveryRow.batch_id)
            .join(BatchRow, BatchRow.id == DeliveryRow.batch_id)
            .where(DeliveryRow.state == DeliveryState.PENDING, DeliveryRow.not_before <= func.clock_timestamp())
            .where(BatchRow.tenant.not_in(but_tenants), _HOST.not_in(but_hosts))
            .order_by(DeliveryRow.not_before)
            .limit(1)
            .with_for_update(skip_locked=True, of=DeliveryRow)
            .correlate(None)
            .scalar_subquery()
        )
        statement = (
            update(DeliveryRow)
            .where(DeliveryRow.batch_id == due, BatchRow.id == DeliveryRow.batch_id)
            .values(attempts=DeliveryRow.attempts + 1, not_before=func.clock_timestamp() + within)
            .returning(DeliveryRow.batch_id, DeliveryRow.attempts, BatchRow.tenant, _HOST)
            .execution_options(synchronize_session=False)
        )
        found = (await self._session.execute(statement)).one_or_none()
        return None if found is None else Claimed(batch_id=found[0], attempt=found[1], tenant=found[2], host=found[3])

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
