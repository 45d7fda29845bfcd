"""The SQL of transcripts' names. Every query names tenant and user; nothing here commits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from serving.gateway.transcripts.models import TranscriptNameRow


class TranscriptNameRepository:
    """Reads and writes `transcript_name` of one user through one session."""

    def __init__(self, session: AsyncSession, *, tenant: str, user: str) -> None:
        self._session = session
        self._tenant = tenant
        self._user = user
        self._mine = (TranscriptNameRow.tenant == tenant, TranscriptNameRow.user_id == user)

    async def ids(self, names: Sequence[str]) -> dict[str, str]:
        """Return the transcripts that names stand for now, by name."""
        row = TranscriptNameRow
        query = select(row.name, row.transcript_id).where(*self._mine, row.name.in_(names))
        return {found[0]: found[1] for found in await self._session.execute(query)}

    async def names(self, transcript_ids: Sequence[str]) -> dict[str, list[str]]:
        """Return every name of these transcripts, sorted, by transcript."""
        row = TranscriptNameRow
        query = select(row.transcript_id, row.name).where(*self._mine, row.transcript_id.in_(transcript_ids))
        found: dict[str, list[str]] = {}
        for transcript_id, name in await self._session.execute(query.order_by(row.name)):
            found.setdefault(transcript_id, []).append(name)
        return found

    async def put(self, names: Mapping[str, str]) -> None:
        """Let names stand for transcripts, whatever they stood for before."""
        if not names:
            return
        owner = {"tenant": self._tenant, "user_id": self._user}
        rows = [{**owner, "name": name, "transcript_id": names[name]} for name in sorted(names)]
        statement = insert(TranscriptNameRow).values(rows)
        await self._session.execute(
            statement.on_conflict_do_update(
                index_elements=["tenant", "user_id", "name"],
                set_={"transcript_id": statement.excluded.transcript_id},
            )
        )

    async def delete(self, name: str) -> None:
        """Forget a name."""
        await self._session.execute(delete(TranscriptNameRow).where(*self._mine, TranscriptNameRow.name == name))

    async def count(self, transcript_id: str) -> int:
        """Return how many names a transcript has."""
        row = TranscriptNameRow
        query = select(func.count()).where(*self._mine, row.transcript_id == transcript_id)
        return int((await self._session.execute(query)).scalar_one())
