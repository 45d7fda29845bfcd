"""Base models and aliases."""

from __future__ import annotations

from kit.database import Database
from registry.catalog.listings import require_adapter
from registry.catalog.repository import CatalogRepository
from registry.errors import AliasNotFound, BaseModelNotFound
from registry.manifest import Owner, RegisteredBase


class Catalog:
    """Answers who has what."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def show_base(self, base_id: str) -> RegisteredBase:
        """Return one base model.

        Raises:
            BaseModelNotFound: when none is registered under this id.
        """
        async with self._database.reading() as session:
            known = await CatalogRepository(session).get_base(base_id)
        if known is None:
            raise BaseModelNotFound(f"base model {base_id!r} is not registered", field="base_id")
        return known

    async def get_alias(self, owner: Owner, adapter: str, alias: str) -> str:
        """Return the version id that the alias names.

        Raises:
            AdapterNotFound, AliasNotFound: for the first part of the name that is unknown.
        """
        async with self._database.transaction() as session:
            repository = CatalogRepository(session)
            found = await repository.get_alias(await require_adapter(repository, owner, adapter), alias)
        if found is None:
            raise AliasNotFound(f"adapter {adapter} of user {owner.user} has no alias {alias}", field="alias")
        return found
