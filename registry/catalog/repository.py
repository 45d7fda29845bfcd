"""SQL of reading: bases, names, listings."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from registry.manifest import AdapterRef, BaseIdentity
from registry.models import AdapterRow, AliasRow, BaseModelRow, VersionRow
from registry.repository import RegistryRepository


class CatalogRepository(RegistryRepository):
    """What the catalog reads, within one transaction."""

    async def add_base(self, identity: BaseIdentity) -> bool:
        """Store a base model unless its id is taken; say whether it was new."""
        statement = (
            insert(BaseModelRow)
            .values(id=identity.id, identity=identity.model_dump(mode="json"))
            .on_conflict_do_nothing()
            .returning(BaseModelRow.id)
        )
        return (await self._session.scalar(statement)) is not None

    async def list_bases(self) -> list[BaseIdentity]:
        """Return every base model, by id."""
        rows = await self._session.scalars(select(BaseModelRow).order_by(BaseModelRow.id))
        return [BaseIdentity.model_validate(row.identity) for row in rows]

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
