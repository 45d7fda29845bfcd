"""SQL of what happens to a version after it is ready."""

from __future__ import annotations

from sqlalchemy import func, update
from sqlalchemy.dialects.postgresql import insert

from registry.models import AliasRow
from registry.repository import RegistryRepository


class LifecycleRepository(RegistryRepository):
    """What steering reads and writes, within one transaction."""

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
