"""All SQL of the registry. Nothing here commits; `None` means "there is none", never "it broke"."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from registry.manifest import AdapterRef, BaseIdentity, Manifest, Owner
from registry.models import AdapterRow, AliasRow, AuditRow, BaseModelRow, State, VersionRow


class RegistryRepository:
    """The registry's tables, within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add_base(self, identity: BaseIdentity) -> bool:
        """Store a base model unless its id is taken; say whether it was new."""
        statement = (
            insert(BaseModelRow)
            .values(id=identity.id, identity=identity.model_dump(mode="json"))
            .on_conflict_do_nothing()
            .returning(BaseModelRow.id)
        )
        return (await self._session.scalar(statement)) is not None

    async def get_base(self, base_id: str) -> BaseIdentity | None:
        """Return the base model registered under this id."""
        row = await self._session.get(BaseModelRow, base_id)
        return BaseIdentity.model_validate(row.identity) if row else None

    async def list_bases(self) -> list[BaseIdentity]:
        """Return every base model, by id."""
        rows = await self._session.scalars(select(BaseModelRow).order_by(BaseModelRow.id))
        return [BaseIdentity.model_validate(row.identity) for row in rows]

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

    async def find_content(self, adapter_id: int, content_digest: str) -> VersionRow | None:
        """Return the version, not rejected, that has this content."""
        return await self._session.scalar(
            select(VersionRow).where(
                VersionRow.adapter_id == adapter_id,
                VersionRow.content_digest == content_digest,
                VersionRow.state != State.REJECTED,
            )
        )

    async def get_numbered(self, adapter_id: int, number: int) -> VersionRow | None:
        """Return the adapter's version of this number."""
        return await self._session.scalar(
            select(VersionRow).where(VersionRow.adapter_id == adapter_id, VersionRow.number == number)
        )

    async def next_number(self, adapter_id: int) -> int:
        """Return one more than the largest number in use; another transaction may take it first."""
        largest = await self._session.scalar(
            select(func.max(VersionRow.number)).where(VersionRow.adapter_id == adapter_id)
        )
        return (largest or 0) + 1

    async def add_version(self, adapter_id: int, manifest: Manifest) -> VersionRow | None:
        """Store a pending version; None when its number or its content was taken meanwhile."""
        statement = (
            insert(VersionRow)
            .values(
                version_id=manifest.version_id,
                adapter_id=adapter_id,
                number=manifest.version,
                state=State.PENDING,
                base_id=manifest.base.id,
                content_digest=manifest.content_digest,
                manifest=manifest.model_dump(mode="json"),
                manifest_digest=manifest.digest,
                size_bytes=sum(file.size_bytes for file in manifest.files),
                created_at=manifest.created_at,
            )
            .on_conflict_do_nothing()
            .returning(VersionRow)
        )
        return await self._session.scalar(statement)

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

    async def add_alias(self, adapter_id: int, name: str, version_id: str) -> bool:
        """Create the alias unless it exists; say whether it was new."""
        statement = (
            insert(AliasRow)
            .values(adapter_id=adapter_id, name=name, version_id=version_id)
            .on_conflict_do_nothing()
            .returning(AliasRow.name)
        )
        return (await self._session.scalar(statement)) is not None

    async def swap_alias(self, adapter_id: int, name: str, *, version_id: str, expected: str) -> bool:
        """Point the alias elsewhere if it still names `expected`; say whether it did."""
        statement = (
            update(AliasRow)
            .where(AliasRow.adapter_id == adapter_id, AliasRow.name == name, AliasRow.version_id == expected)
            .values(version_id=version_id, moved_at=func.now())
            .returning(AliasRow.name)
        )
        return (await self._session.scalar(statement)) is not None

    async def resolve(self, ref: AdapterRef) -> VersionRow | None:
        """Return the version that a reference names, in one indexed query."""
        statement = select(VersionRow).join(AdapterRow, AdapterRow.id == VersionRow.adapter_id)
        if ref.version is None:
            alias = (AliasRow.adapter_id == AdapterRow.id) & (AliasRow.version_id == VersionRow.version_id)
            statement = statement.join(AliasRow, alias).where(AliasRow.name == ref.selector)
        else:
            statement = statement.where(VersionRow.number == ref.version)
        return await self._session.scalar(
            statement.where(
                AdapterRow.tenant == ref.owner.tenant,
                AdapterRow.user_id == ref.owner.user,
                AdapterRow.name == ref.adapter,
            )
        )

    async def list_versions(self, adapter_id: int, *, limit: int) -> list[VersionRow]:
        """Return the adapter's versions, the newest first."""
        rows = await self._session.scalars(
            select(VersionRow)
            .where(VersionRow.adapter_id == adapter_id)
            .order_by(VersionRow.number.desc())
            .limit(limit)
        )
        return list(rows)

    async def list_adapters(self, tenant: str, *, user: str | None, after: int, limit: int) -> list[AdapterRow]:
        """Return a tenant's (or user's) adapters numbered above `after`, in the order they were created."""
        statement = select(AdapterRow).where(AdapterRow.tenant == tenant, AdapterRow.id > after)
        if user is not None:
            statement = statement.where(AdapterRow.user_id == user)
        return list(await self._session.scalars(statement.order_by(AdapterRow.id).limit(limit)))

    async def list_aliases(self, adapter_ids: Sequence[int]) -> dict[int, dict[str, str]]:
        """Return alias → version id of each of these adapters that has any."""
        found: dict[int, dict[str, str]] = {}
        for row in await self._session.scalars(select(AliasRow).where(AliasRow.adapter_id.in_(adapter_ids))):
            found.setdefault(row.adapter_id, {})[row.name] = row.version_id
        return found

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
