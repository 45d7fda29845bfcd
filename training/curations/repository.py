"""The SQL of curations."""

from __future__ import annotations

from sqlalchemy import and_, delete, exists, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from kit.names import check_name
from training.curation import Curation, Decision
from training.curations.models import CurationRow
from transcripts.models import TranscriptRow


class CurationRepository:
    """Decisions as one session sees them; whoever opened its transaction commits."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def get(self, *, tenant: str, user: str) -> Curation:
        """Return all decisions about the user's pairs; none when nobody has decided anything."""
        statement = select(CurationRow).where(CurationRow.tenant == tenant, CurationRow.user_id == user)
        rows = (await self._session.execute(statement.order_by(CurationRow.key))).scalars()
        return Curation(decisions={row.key: _decision(row) for row in rows})

    async def put(self, key: str, decision: Decision, *, tenant: str, user: str) -> None:
        """Keep a decision; it replaces an earlier one about the same pair."""
        values = {**decision.effect, "transcript_id": decision.transcript_id, "decided_by": decision.by}
        row = {"tenant": check_name(tenant, field="tenant"), "user_id": check_name(user, field="user_id"), "key": key}
        statement = insert(CurationRow).values(**row, **values)
        keys = [CurationRow.tenant, CurationRow.user_id, CurationRow.key]
        await self._session.execute(
            statement.on_conflict_do_update(index_elements=keys, set_={**values, "decided_at": func.now()})
        )

    async def remove(self, key: str, *, tenant: str, user: str) -> bool:
        """Take a decision back; say whether there was one."""
        mine = (CurationRow.tenant == tenant, CurationRow.user_id == user, CurationRow.key == key)
        removed = await self._session.execute(delete(CurationRow).where(*mine).returning(CurationRow.key))
        return removed.first() is not None

    async def forget(self, *, tenant: str, user: str) -> None:
        """Take all decisions about a user's pairs back."""
        await self._session.execute(
            delete(CurationRow).where(CurationRow.tenant == tenant, CurationRow.user_id == user)
        )

    async def forget_erased(self) -> int:
        """Forget what was decided about erased transcripts; return how many decisions there were.

        An edit goes with the transcript that its pair is from, for it may quote it; a drop says nothing about anybody
        and stays until the user has no transcript at all.
        """
        theirs = exists().where(
            TranscriptRow.tenant == CurationRow.tenant, TranscriptRow.user_id == CurationRow.user_id
        )
        source = theirs.where(TranscriptRow.id == CurationRow.transcript_id)
        erased = or_(~theirs, and_(CurationRow.transcript_id.is_not(None), ~source))
        gone = await self._session.execute(delete(CurationRow).where(erased).returning(CurationRow.key))
        return len(gone.all())


def _decision(row: CurationRow) -> Decision:
    return Decision(
        action=row.action,
        question=row.question,
        completion=row.completion,
        transcript_id=row.transcript_id,
        by=row.decided_by,
        at=row.decided_at.isoformat(timespec="seconds"),
    )
