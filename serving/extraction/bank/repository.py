"""The SQL of tenants' question banks. Every query names the tenant; nothing here commits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from kit.names import check_name
from serving.extraction.models import BankRow


@dataclass(frozen=True, kw_only=True)
class KeptBank:
    """One revision of a tenant's bank as it was written; no document = back to the standard bank."""

    revision: int
    document: str | None
    made_by: str
    made_at: datetime


class BankRepository:
    """Reads and writes `question_bank` through one session."""

    def __init__(self, session: AsyncSession, *, tenant: str) -> None:
        """Bind the session to one tenant.

        Raises:
            InvalidName: when `tenant` is no name.
        """
        self._session = session
        self._tenant = check_name(tenant, field="tenant")

    async def lock(self) -> None:
        """Wait for others who change this tenant's bank, and hold them off until this transaction ends."""
        key = func.hashtextextended(f"lorry question bank\n{self._tenant}", 0)
        await self._session.execute(select(func.pg_advisory_xact_lock(key)))

    async def revisions(self, *, limit: int) -> Sequence[KeptBank]:
        """Return the newest revisions, the newest first."""
        query = select(BankRow).where(BankRow.tenant == self._tenant).order_by(BankRow.revision.desc()).limit(limit)
        return [_kept(row) for row in (await self._session.execute(query)).scalars()]

    async def add(self, document: str | None, *, revision: int, by: str) -> KeptBank:
        """Keep a revision."""
        values = {"tenant": self._tenant, "revision": revision, "document": document, "made_by": by}
        statement = insert(BankRow).values(values).returning(BankRow)
        return _kept((await self._session.execute(statement)).scalar_one())


def _kept(row: BankRow) -> KeptBank:
    return KeptBank(revision=row.revision, document=row.document, made_by=row.made_by, made_at=row.made_at)
