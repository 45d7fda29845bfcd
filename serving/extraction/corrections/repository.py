"""The SQL of corrections. Every query names tenant and user; nothing here commits."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from kit.names import check_name
from serving.extraction.corrections.correction import Correction, Kind
from serving.extraction.models import CorrectionRow
from serving.extraction.profile.profile import Statement


class CorrectionRepository:
    """Reads and writes `profile_correction` through one session."""

    def __init__(self, session: AsyncSession, *, tenant: str, user: str) -> None:
        """Bind the session to one user.

        Raises:
            InvalidName: when `tenant` or `user` is no name.
        """
        self._session = session
        self._tenant = check_name(tenant, field="tenant")
        self._user = check_name(user, field="user_id")

    async def lock(self) -> None:
        """Wait for others who correct this user's profile, and hold them off until this transaction ends."""
        key = func.hashtextextended(f"lorry corrections\n{self._tenant}\n{self._user}", 0)
        await self._session.execute(select(func.pg_advisory_xact_lock(key)))

    async def add(
        self, *, kind: Kind, fact_id: str, text: str, topic: str | None, statement: Statement | None, by: str
    ) -> Correction:
        """Keep a correction; the one in force of the same fact is withdrawn by it."""
        await self.withdraw(fact_id=fact_id, by=by)
        values = {
            "tenant": self._tenant,
            "user_id": self._user,
            "kind": kind,
            "fact_id": fact_id,
            "text": text,
            "topic": topic,
            "statement": None if statement is None else statement.model_dump(mode="json"),
            "made_by": by,
        }
        statement_ = insert(CorrectionRow).values(values).returning(CorrectionRow)
        return _correction((await self._session.execute(statement_)).scalar_one())

    async def list(self, *, withdrawn: bool = False) -> Sequence[Correction]:
        """Return the user's corrections in force, the oldest first; with `withdrawn`, all that ever were."""
        query = select(CorrectionRow).where(*self._mine()).order_by(CorrectionRow.id)
        if not withdrawn:
            query = query.where(CorrectionRow.withdrawn_at.is_(None))
        return [_correction(row) for row in (await self._session.execute(query)).scalars()]

    async def withdraw(self, *, by: str, fact_id: str | None = None, id: int | None = None) -> int:
        """Withdraw what is in force of one fact, or one correction; return how many there were."""
        statement = (
            update(CorrectionRow)
            .where(*self._mine(), CorrectionRow.withdrawn_at.is_(None))
            .where(CorrectionRow.fact_id == fact_id if fact_id is not None else CorrectionRow.id == id)
            .values(withdrawn_by=by, withdrawn_at=func.now())
            .returning(CorrectionRow.id)
        )
        return len((await self._session.execute(statement)).all())

    async def erase(self) -> int:
        """Delete everything that was ever corrected of the user; return how many rows there were."""
        statement = delete(CorrectionRow).where(*self._mine()).returning(CorrectionRow.id)
        return len((await self._session.execute(statement)).all())

    def _mine(self) -> tuple[ColumnElement[bool], ...]:
        return CorrectionRow.tenant == self._tenant, CorrectionRow.user_id == self._user


def _correction(row: CorrectionRow) -> Correction:
    return Correction(
        id=row.id,
        kind=row.kind,
        fact_id=row.fact_id,
        text=row.text,
        topic=row.topic,
        statement=None if row.statement is None else Statement.model_validate(row.statement),
        made_by=row.made_by,
        made_at=row.made_at,
        withdrawn_by=row.withdrawn_by,
        withdrawn_at=row.withdrawn_at,
    )
