"""SQL of data keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import LargeBinary, Text, column, func, select, text, update, values
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from registry.manifest import Owner
from registry.models import AuditRow, DataKeyRow

_MASTER_KEYS_LOCK = 0x6C6F7272796D6B  # "lorrymk": one number for all processes on one database

_MASTER_KEYS_IN_USE = text(
    """
    with recursive found as (
        select min(master_key_id) as id from data_key
        union all
        select (select min(k.master_key_id) from data_key k where k.master_key_id > found.id) from found
        where found.id is not null
    )
    select id from found where id is not null
    """
)


@dataclass(frozen=True, kw_only=True)
class WrappedKey:
    """A data key as the table holds it: useless without the master key."""

    id: str
    master_key_id: str
    wrapped: bytes = field(repr=False)


class SealingRepository:
    """Data keys, within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def get_of_owner(self, owner: Owner) -> WrappedKey | None:
        """Return the owner's key; None when they have none, or it was destroyed."""
        statement = select(DataKeyRow).where(
            DataKeyRow.tenant == owner.tenant, DataKeyRow.user_id == owner.user, DataKeyRow.destroyed_at.is_(None)
        )
        return _wrapped(await self._session.scalar(statement))

    async def share_of_owner(self, owner: Owner) -> WrappedKey | None:
        """Return the owner's key and keep it from being destroyed until this transaction ends; None = there is none."""
        statement = select(DataKeyRow).where(
            DataKeyRow.tenant == owner.tenant, DataKeyRow.user_id == owner.user, DataKeyRow.destroyed_at.is_(None)
        )
        return _wrapped(await self._session.scalar(statement.with_for_update(read=True)))

    async def lock_of_owner(self, owner: Owner) -> None:
        """Wait for whoever shares the owner's key, and let nobody share it until this transaction ends."""
        statement = select(DataKeyRow.id).where(
            DataKeyRow.tenant == owner.tenant, DataKeyRow.user_id == owner.user, DataKeyRow.destroyed_at.is_(None)
        )
        await self._session.execute(statement.with_for_update())

    async def get(self, data_key_id: str) -> WrappedKey | None:
        """Return a key; None when there is none, or it was destroyed."""
        return _wrapped(await self._session.get(DataKeyRow, data_key_id))

    async def add(self, owner: Owner, key: WrappedKey) -> bool:
        """Add the owner's key unless they have one; say whether it was added."""
        statement = (
            insert(DataKeyRow)
            .values(
                id=key.id,
                tenant=owner.tenant,
                user_id=owner.user,
                wrapped=key.wrapped,
                master_key_id=key.master_key_id,
            )
            .on_conflict_do_nothing()
            .returning(DataKeyRow.id)
        )
        return (await self._session.scalar(statement)) is not None

    async def share_master_keys(self) -> None:
        """Keep every master key from being forgotten until this transaction ends."""
        await self._session.execute(select(func.pg_advisory_xact_lock_shared(_MASTER_KEYS_LOCK)))

    async def hold_master_keys(self) -> None:
        """Wait until no transaction wraps a new key, and let none start until this one ends."""
        await self._session.execute(select(func.pg_advisory_xact_lock(_MASTER_KEYS_LOCK)))

    async def destroy(self, owner: Owner) -> str | None:
        """Forget the owner's key for good; return its id, or None when there was none."""
        statement = (
            update(DataKeyRow)
            .where(DataKeyRow.tenant == owner.tenant, DataKeyRow.user_id == owner.user)
            .where(DataKeyRow.destroyed_at.is_(None))
            .values(wrapped=None, master_key_id=None, destroyed_at=func.now())
            .returning(DataKeyRow.id)
        )
        return await self._session.scalar(statement)

    async def list_wrapped_otherwise(self, master_key_id: str, *, after: str, limit: int) -> Sequence[WrappedKey]:
        """Return the next keys, in the order of their ids, that are wrapped under another master key."""
        statement = (
            select(DataKeyRow)
            .where(DataKeyRow.master_key_id != master_key_id, DataKeyRow.id > after)
            .order_by(DataKeyRow.id)
            .limit(limit)
        )
        return [key for row in await self._session.scalars(statement) if (key := _wrapped(row))]

    async def count_wrapped_otherwise(self, master_key_id: str) -> int:
        """Return how many keys are wrapped under another master key."""
        statement = select(func.count()).select_from(DataKeyRow).where(DataKeyRow.master_key_id != master_key_id)
        return (await self._session.scalar(statement)) or 0

    async def rewrap(self, renewed: Sequence[tuple[WrappedKey, WrappedKey]]) -> int:
        """Replace the wrapping of keys, (old, new), that were not destroyed or rewrapped meanwhile; return how many."""
        if not renewed:
            return 0
        changes = values(
            column("id", Text), column("old", LargeBinary), column("wrapped", LargeBinary), column("master", Text)
        ).data([(old.id, old.wrapped, new.wrapped, new.master_key_id) for old, new in renewed])
        named = changes.alias("changes")
        statement = (
            update(DataKeyRow)
            .where(DataKeyRow.id == named.c.id, DataKeyRow.wrapped == named.c.old)
            .values(wrapped=named.c.wrapped, master_key_id=named.c.master, rewrapped_at=func.now())
            .returning(DataKeyRow.id)
        )
        return len((await self._session.execute(statement)).all())

    async def count_by_master_key(self) -> dict[str, int]:
        """Return how many data keys each master key wraps."""
        statement = select(DataKeyRow.master_key_id, func.count()).where(DataKeyRow.master_key_id.is_not(None))
        rows = await self._session.execute(statement.group_by(DataKeyRow.master_key_id))
        return {master_key_id: count for master_key_id, count in rows if master_key_id}

    async def list_master_keys(self) -> Sequence[str]:
        """Return the master keys that wrap any data key; it costs one look into the index for each of them."""
        return (await self._session.scalars(_MASTER_KEYS_IN_USE)).all()

    def record(
        self,
        actor: str,
        action: str,
        *,
        tenant: str | None = None,
        subject: str,
        before: str | None = None,
        why: str | None,
    ) -> None:
        """Add one line to the audit trail; `subject` is a master key's id or an owner's, `before` a data key's."""
        self._session.add(AuditRow(actor=actor, action=action, tenant=tenant, subject=subject, before=before, why=why))


def _wrapped(row: DataKeyRow | None) -> WrappedKey | None:
    if row is None or row.wrapped is None or row.master_key_id is None:
        return None
    return WrappedKey(id=row.id, master_key_id=row.master_key_id, wrapped=row.wrapped)
