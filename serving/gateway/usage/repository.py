"""The SQL of usage. Every query names the tenant; nothing here commits."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import delete, func, literal, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from serving.gateway.usage.models import UsageDayRow

_COUNTS = ("requests", "prompt_tokens", "completion_tokens")


@dataclass(frozen=True, kw_only=True)
class Used:
    """What one user's adapter was asked on one day; `user_id` empty = all of the tenant's.

    `age_seconds` is how long ago the first of it was counted, where it is still to be written.
    """

    tenant: str
    day: datetime.date
    user_id: str
    requests: int
    prompt_tokens: int
    completion_tokens: int
    age_seconds: float = 0.0


class UsageRepository:
    """Reads and writes `usage_day` through one session."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, counted: Sequence[Used]) -> None:
        """Add to what was counted before; each user and day once, in one order, so that two gateways never deadlock."""
        if not counted:
            return
        rows = [_row(each) for each in sorted(counted, key=lambda each: (each.tenant, each.day, each.user_id))]
        statement = insert(UsageDayRow).values(rows)
        sums = {name: getattr(UsageDayRow, name) + statement.excluded[name] for name in _COUNTS}
        await self._session.execute(
            statement.on_conflict_do_update(index_elements=["tenant", "day", "user_id"], set_=sums)
        )

    async def count_of(self, *, tenant: str, user: str) -> int:
        """Return on how many days the user was asked anything."""
        query = select(func.count()).where(UsageDayRow.tenant == tenant, UsageDayRow.user_id == user)
        return int((await self._session.execute(query)).scalar_one())

    async def hide(self, *, tenant: str, user: str, pseudonym: str) -> None:
        """Let what was used stand under another name, so that a tenant's sums stay true."""
        mine = (UsageDayRow.tenant == tenant, UsageDayRow.user_id == user)
        taken = await self._session.execute(delete(UsageDayRow).where(*mine).returning(UsageDayRow))
        await self.add([replace(_used(row), user_id=pseudonym) for row in taken.scalars()])

    async def page(
        self,
        tenant: str,
        *,
        since: datetime.date,
        until: datetime.date,
        user: str | None,
        after: tuple[datetime.date, str] | None,
        limit: int,
    ) -> list[Used]:
        """Return the next rows by (day, user), both days included."""
        row = UsageDayRow
        query = (
            select(row)
            .where(row.tenant == tenant, row.day >= since, row.day <= until)
            .order_by(row.day, row.user_id)
            .limit(limit)
        )
        if user is not None:
            query = query.where(row.user_id == user)
        if after is not None:
            query = query.where(tuple_(row.day, row.user_id) > tuple_(literal(after[0]), literal(after[1])))
        return [_used(each) for each in (await self._session.execute(query)).scalars()]

    async def sums(self, tenant: str, *, since: datetime.date, until: datetime.date, user: str | None) -> list[Used]:
        """Return one row a day, both days included, summed over users."""
        row = UsageDayRow
        counts = [func.sum(getattr(row, name)) for name in _COUNTS]
        query = (
            select(row.day, *counts)
            .where(row.tenant == tenant, row.day >= since, row.day <= until)
            .group_by(row.day)
            .order_by(row.day)
        )
        if user is not None:
            query = query.where(row.user_id == user)
        return [
            Used(
                tenant=tenant,
                day=found[0],
                user_id=user or "",
                requests=int(found[1]),
                prompt_tokens=int(found[2]),
                completion_tokens=int(found[3]),
            )
            for found in await self._session.execute(query)
        ]


def _row(used: Used) -> dict[str, Any]:
    row = asdict(used)
    return row | {"counted_at": func.now() - datetime.timedelta(seconds=row.pop("age_seconds"))}


def _used(row: UsageDayRow) -> Used:
    return Used(
        tenant=row.tenant,
        day=row.day,
        user_id=row.user_id,
        requests=row.requests,
        prompt_tokens=row.prompt_tokens,
        completion_tokens=row.completion_tokens,
    )
