"""The SQL of API keys and of tenants' limits. Nothing here commits; every moment is the database's."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func, insert, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from serving.gateway.models import ApiKeyRow, TenantLimitRow


@dataclass(frozen=True, kw_only=True)
class TenantLimit:
    """What one tenant may use of all gateways together; None = what the settings say."""

    requests_per_second: float | None = None
    burst: int | None = None
    concurrent: int | None = None


@dataclass(frozen=True, kw_only=True)
class StoredKey:
    """A key that is in force, as the database knows it; `left_seconds` None = it does not expire."""

    key_id: str
    tenant: str
    scopes: tuple[str, ...]
    digest: bytes
    left_seconds: float | None
    limit: TenantLimit


@dataclass(frozen=True, kw_only=True)
class ListedKey:
    """A key as people see it; `prefix` is how it begins."""

    key_id: str
    tenant: str
    name: str
    scopes: tuple[str, ...]
    prefix: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


def _in_force() -> tuple[ColumnElement[bool], ...]:
    row = ApiKeyRow
    return row.revoked_at.is_(None), or_(row.expires_at.is_(None), row.expires_at > func.now())


class ApiKeyRepository:
    """Reads and writes `api_key` through one session."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(
        self,
        *,
        tenant: str,
        prefix: str,
        digest: bytes,
        scopes: tuple[str, ...],
        name: str,
        lasts: timedelta | None,
    ) -> str:
        """Keep a new key's digest; return its id."""
        values = {"tenant": tenant, "prefix": prefix, "digest": digest, "scopes": list(scopes), "name": name}
        expires = {} if lasts is None else {"expires_at": func.now() + lasts}
        statement = insert(ApiKeyRow).values(**values, **expires).returning(ApiKeyRow.key_id)
        return str((await self._session.execute(statement)).scalar_one())

    async def with_prefix(self, prefix: str) -> list[StoredKey]:
        """Return the keys that begin so and are in force, each with its tenant's limits: one, but for a collision."""
        row, limit = ApiKeyRow, TenantLimitRow
        left = func.extract("epoch", row.expires_at - func.now())
        statement = (
            select(
                row.key_id, row.tenant, row.scopes, row.digest, left,
                limit.requests_per_second, limit.burst, limit.concurrent,
            )
            .outerjoin(limit, limit.tenant == row.tenant)
            .where(row.prefix == prefix, *_in_force())
        )  # fmt: skip
        return [
            StoredKey(
                key_id=found[0],
                tenant=found[1],
                scopes=tuple(found[2]),
                digest=found[3],
                left_seconds=None if found[4] is None else float(found[4]),
                limit=TenantLimit(requests_per_second=found[5], burst=found[6], concurrent=found[7]),
            )
            for found in await self._session.execute(statement)
        ]

    async def list(self, tenant: str) -> list[ListedKey]:
        """Return every key that a tenant ever had, the newest first."""
        statement = select(ApiKeyRow).where(ApiKeyRow.tenant == tenant).order_by(ApiKeyRow.id.desc())
        return [_listed(row) for row in (await self._session.execute(statement)).scalars()]

    async def take_in_force(self, tenant: str, key_id: str) -> ListedKey | None:
        """Return a tenant's key and hold its row until the transaction ends; None when there is none in force."""
        mine = (ApiKeyRow.tenant == tenant, ApiKeyRow.key_id == key_id)
        found = await self._session.execute(select(ApiKeyRow).where(*mine, *_in_force()).with_for_update())
        row = found.scalar_one_or_none()
        return None if row is None else _listed(row)

    async def expire(self, key_id: str, *, after: timedelta) -> None:
        """Let a key be refused after a while, unless it ends before that by itself."""
        moment = func.now() + after
        sooner = func.least(func.coalesce(ApiKeyRow.expires_at, moment), moment)
        await self._session.execute(update(ApiKeyRow).where(ApiKeyRow.key_id == key_id).values(expires_at=sooner))

    async def revoke(self, tenant: str, key_id: str) -> bool:
        """Stop a tenant's key from being accepted; say whether there was such a key in force."""
        statement = (
            update(ApiKeyRow)
            .where(ApiKeyRow.tenant == tenant, ApiKeyRow.key_id == key_id, *_in_force())
            .values(revoked_at=func.now())
            .returning(ApiKeyRow.id)
        )
        return (await self._session.execute(statement)).first() is not None


class TenantLimitRepository:
    """Reads and writes `tenant_limit` through one session."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def get(self, tenant: str) -> TenantLimit:
        """Return what a tenant may use; all None when nothing was set for it."""
        row = await self._session.get(TenantLimitRow, tenant)
        if row is None:
            return TenantLimit()
        return TenantLimit(requests_per_second=row.requests_per_second, burst=row.burst, concurrent=row.concurrent)

    async def put(self, tenant: str, limit: TenantLimit) -> None:
        """Set what a tenant may use."""
        values = {
            "requests_per_second": limit.requests_per_second, "burst": limit.burst, "concurrent": limit.concurrent
        }  # fmt: skip
        statement = upsert(TenantLimitRow).values(tenant=tenant, **values)
        await self._session.execute(statement.on_conflict_do_update(index_elements=["tenant"], set_=values))


def _listed(row: ApiKeyRow) -> ListedKey:
    return ListedKey(
        key_id=row.key_id,
        tenant=row.tenant,
        name=row.name,
        scopes=tuple(row.scopes),
        prefix=row.prefix,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )
