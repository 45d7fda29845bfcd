"""What every part of the registry reads and writes. Nothing in a repository commits; `None` means "there is none"."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from registry.manifest import BaseIdentity, Owner
from registry.models import AdapterRow, AliasRow, AuditRow, BaseModelRow, State, VersionRow


class RegistryRepository:
    """Bases, adapters, versions and the audit trail, within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def get_base(self, base_id: str) -> BaseIdentity | None:
        """Return the base model registered under this id."""
        row = await self._session.get(BaseModelRow, base_id)
        return BaseIdentity.model_validate(row.identity) if row else None

    async def ensure_adapter(self, owner: Owner, name: str) -> int:
        """Return the adapter's number, creating the adapter if it is new."""
        values = {"tenant": owner.tenant, "user_id": owner.user, "name": name}
        await self._session.execute(insert(AdapterRow).values(values).on_conflict_do_nothing())
        found = await self.get_adapter(owner, name)
        if found is None:
            raise AssertionError("adapters are never deleted")
        return found

    async def get_adapter(self, owner: Owner, name: str) -> int | None:
        """Return the adapter's number."""
        key = tuple_(AdapterRow.tenant, AdapterRow.user_id, AdapterRow.name)
        return await self._session.scalar(select(AdapterRow.id).where(key == (owner.tenant, owner.user, name)))

    async def get_version(self, version_id: str) -> VersionRow | None:
        """Return a version, whatever its state."""
        return await self._session.get(VersionRow, version_id)

    async def lock_version(self, version_id: str) -> VersionRow | None:
        """Return a version that nobody can change until this transaction ends."""
        return await self._session.get(VersionRow, version_id, with_for_update=True, populate_existing=True)

    async def set_state(
        self,
        version_id: str,
        state: State,
        *,
        was: Sequence[State],
        reason: str | None = None,
        reason_field: str | None = None,
        ready_at: datetime | None = None,
    ) -> bool:
        """Move a version from one of the states `was`; say whether it was in one of them."""
        values: dict[str, Any] = {"state": state}
        if reason is not None:
            values |= {"reason": reason, "reason_field": reason_field}
        if ready_at is not None:
            values["ready_at"] = ready_at
        statement = (
            update(VersionRow)
            .where(VersionRow.version_id == version_id, VersionRow.state.in_(was))
            .values(values)
            .returning(VersionRow.version_id)
        )
        return (await self._session.scalar(statement)) is not None

    async def get_alias(self, adapter_id: int, name: str) -> str | None:
        """Return the version id that the alias names."""
        return await self._session.scalar(
            select(AliasRow.version_id).where(AliasRow.adapter_id == adapter_id, AliasRow.name == name)
        )

    def record(
        self,
        actor: str,
        action: str,
        *,
        adapter_id: int | None = None,
        version_id: str | None = None,
        before: str | None = None,
        after: str | None = None,
        why: str | None = None,
    ) -> None:
        """Add one line to the audit trail."""
        row = AuditRow(
            actor=actor,
            action=action,
            adapter_id=adapter_id,
            version_id=version_id,
            before=before,
            after=after,
            why=why,
        )
        self._session.add(row)
