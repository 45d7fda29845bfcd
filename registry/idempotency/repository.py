"""SQL of requests that carried an idempotency key; every moment is the database's."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy import delete, func, or_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from kit.canonical import sha256_bytes
from registry.manifest import Owner
from registry.models import IdempotentRequestRow
from registry.repository import subject_of

KEPT: Final = timedelta(hours=24)  # what is older is forgotten once an hour
# Longer than any request runs: whoever claimed the key and still has no answer died on the way.
RUNNING: Final = timedelta(minutes=15)


@dataclass(frozen=True, kw_only=True)
class Known:
    """A request that used this key before; `status` None = it still runs."""

    digest: str
    status: int | None
    answer: bytes | None


class IdempotencyRepository:
    """Who used which key, within one transaction; `scope` is whose key it is, `key` what they call it."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def claim(self, scope: str, key: str, *, digest: str, owner: Owner | None) -> Known | None:
        """Take a key; None when it is ours now, else what it was used for. `owner` is whom the request is about."""
        row = IdempotentRequestRow
        abandoned = row.status.is_(None) & (row.at < func.now() - RUNNING)
        asked = {"digest": digest, "subject": "" if owner is None else subject_of(owner)}
        free = {**asked, "status": None, "answer": None, "at": func.now()}
        statement = (
            insert(row)
            .values(tenant=scope, key=_kept_as(key), **asked)
            .on_conflict_do_update(
                index_elements=["tenant", "key"], set_=free, where=or_(row.at < func.now() - KEPT, abandoned)
            )
            .returning(row.key)
        )
        if (await self._session.scalar(statement)) is not None:
            return None
        found = await self._session.get(row, (scope, _kept_as(key)))
        if found is None:
            raise AssertionError("who holds a key in conflict cannot vanish within a statement")
        return Known(digest=found.digest, status=found.status, answer=found.answer)

    async def keep(self, scope: str, key: str, *, digest: str, status: int, answer: bytes) -> None:
        """Remember the answer of a request that holds its key."""
        row = IdempotentRequestRow
        mine = (row.tenant == scope, row.key == _kept_as(key), row.digest == digest, row.status.is_(None))
        await self._session.execute(update(row).where(*mine).values(status=status, answer=answer))

    async def release(self, scope: str, key: str, *, digest: str) -> None:
        """Give a key back whose request changed nothing."""
        row = IdempotentRequestRow
        mine = (row.tenant == scope, row.key == _kept_as(key), row.digest == digest, row.status.is_(None))
        await self._session.execute(delete(row).where(*mine))


def _kept_as(key: str) -> str:
    """Return what is kept of a key: its caller may have made it of anything, as of a user's name."""
    return sha256_bytes(key.encode())
