"""What one tenant may have in batches: the settings' numbers, or what an operator said of this tenant."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from kit.database import Database
from kit.names import check_name
from serving.jobs.errors import BatchRequestInvalid
from serving.jobs.settings import BatchSettings
from serving.jobs.tenants.repository import TenantRepository

_MOST = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Unfinished batches at once, and users of one batch."""

    max_batches: int
    max_users: int


class TenantLimits:
    """Every tenant's limits."""

    def __init__(self, database: Database, settings: BatchSettings) -> None:
        self._database = database
        self._settings = settings

    async def get(self, tenant: str) -> Limits:
        """Return what holds for a tenant."""
        async with self._database.reading() as session:
            return await self.get_in(session, tenant)

    async def get_in(self, session: AsyncSession, tenant: str) -> Limits:
        """Return what holds for a tenant, read through the caller's session."""
        row = await TenantRepository(session).get(tenant)
        return Limits(
            max_batches=_or(row.max_batches if row else None, self._settings.extraction_max_batches),
            max_users=_or(row.max_users if row else None, self._settings.extraction_max_users),
        )

    async def put(self, tenant: str, *, max_batches: int | None = None, max_users: int | None = None) -> Limits:
        """Change what is given, -1 = what the settings say again, and return what holds then.

        Raises:
            BatchRequestInvalid: naming the number that cannot be a limit.
        """
        check_name(tenant, field="tenant")
        given = {"max_batches": max_batches, "max_users": max_users}
        values = {name: _checked(name, number) for name, number in given.items() if number is not None}
        async with self._database.transaction() as session:
            await TenantRepository(session).put(tenant, values)
            return await self.get_in(session, tenant)


def _or(number: int | None, default: int) -> int:
    return default if number is None else number


def _checked(name: str, number: int) -> int | None:
    if number == -1:
        return None
    if not 0 <= number <= _MOST:
        raise BatchRequestInvalid(f"{name} must be from 0 to {_MOST}, or -1 for the default", field=name)
    return number
