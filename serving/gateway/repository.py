"""The SQL of the gateway: API keys. Nothing here commits."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from serving.gateway.models import ApiKeyRow


@dataclass(frozen=True, kw_only=True)
class StoredKey:
    """A key that is not revoked, as the database knows it."""

    tenant: str
    digest: bytes


class ApiKeyRepository:
    """Reads and writes `api_key` through one session."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, *, tenant: str, prefix: str, digest: bytes) -> None:
        """Keep a new key's digest."""
        await self._session.execute(insert(ApiKeyRow).values(tenant=tenant, prefix=prefix, digest=digest))

    async def with_prefix(self, prefix: str) -> list[StoredKey]:
        """Return the keys that begin so and are not revoked: one, but for a collision."""
        statement = select(ApiKeyRow.tenant, ApiKeyRow.digest).where(
            ApiKeyRow.prefix == prefix, ApiKeyRow.revoked_at.is_(None)
        )
        rows = await self._session.execute(statement)
        return [StoredKey(tenant=tenant, digest=digest) for tenant, digest in rows]

    async def revoke(self, digest: bytes) -> bool:
        """Stop a key from being accepted; say whether there was such a key in force."""
        statement = (
            update(ApiKeyRow)
            .where(ApiKeyRow.digest == digest, ApiKeyRow.revoked_at.is_(None))
            .values(revoked_at=func.now())
            .returning(ApiKeyRow.id)
        )
        return (await self._session.execute(statement)).first() is not None
