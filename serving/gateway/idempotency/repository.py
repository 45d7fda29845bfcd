"""The SQL of requests that carried a key; every moment is the database's."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from serving.gateway.idempotency.models import GatewayRequestRow


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Whose key it is, and the digest of what is asked under it."""

    tenant: str
    key: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class Kept:
    """An answer to be given again."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, kw_only=True)
class Known:
    """A request that used this key before; `answer` None = it still runs, `user` None = it was about nobody."""

    digest: str
    answer: Kept | None
    user: str | None = None


class RequestRepository:
    """Reads and writes `gateway_request` through one session."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def take(self, claim: Claim, *, lasts: timedelta) -> Known | None:
        """Take a key for a request that runs no longer than `lasts`; None when it is ours now, else what it was."""
        row = GatewayRequestRow
        until = func.now() + lasts
        values = {"digest": claim.digest, "expires_at": until}
        free = {**values, "taken_at": func.now(), "user_id": None, "status": None, "headers": None, "answer": None}
        statement = (
            insert(row)
            .values(tenant=claim.tenant, key=claim.key, **values)
            .on_conflict_do_update(index_elements=["tenant", "key"], set_=free, where=row.expires_at <= func.now())
            .returning(row.key)
        )
        if (await self._session.scalar(statement)) is not None:
            return None
        found = await self._session.get(row, (claim.tenant, claim.key))
        if found is None:  # it was given back between the two statements: whoever asks again finds it free
            return Known(digest=claim.digest, answer=None)
        if found.status is None:
            return Known(digest=found.digest, answer=None)
        kept = Kept(status=found.status, headers=found.headers or {}, body=found.answer or b"")
        return Known(digest=found.digest, answer=kept, user=found.user_id)

    async def keep(self, claim: Claim, answer: Kept, *, user: str | None, lasts: timedelta) -> None:
        """Remember the answer of a request that holds its key; `user` is whom it is about.

        Raises:
            BeingErased: the user is being erased, or was while the request ran; give the key back.
        """
        values = {"status": answer.status, "headers": answer.headers, "answer": answer.body, "user_id": user}
        statement = update(GatewayRequestRow).where(*_held(claim))
        await self._session.execute(statement.values(**values, expires_at=func.now() + lasts))

    async def give_back(self, claim: Claim) -> None:
        """Free the key of a request whose answer is not kept."""
        await self._session.execute(delete(GatewayRequestRow).where(*_held(claim)))

    async def count_of(self, *, tenant: str, user: str) -> int:
        """Return how many answers are kept that are about the user."""
        query = select(func.count()).where(*_about(tenant, user))
        return int((await self._session.execute(query)).scalar_one())

    async def erase(self, *, tenant: str, user: str) -> None:
        """Delete the answers that are about the user, with their keys."""
        await self._session.execute(delete(GatewayRequestRow).where(*_about(tenant, user)))

    async def delete_expired(self) -> None:
        """Delete what is not answered again any more."""
        await self._session.execute(delete(GatewayRequestRow).where(GatewayRequestRow.expires_at <= func.now()))


def _about(tenant: str, user: str) -> tuple[ColumnElement[bool], ...]:
    return GatewayRequestRow.tenant == tenant, GatewayRequestRow.user_id == user


def _held(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    row = GatewayRequestRow
    return row.tenant == claim.tenant, row.key == claim.key, row.digest == claim.digest, row.status.is_(None)
