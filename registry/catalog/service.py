"""Base models, aliases, and versions by their opaque id."""

from __future__ import annotations

from kit.database import Database
from kit.storage import ObjectStorage
from registry.catalog.listings import require_adapter
from registry.catalog.repository import CatalogRepository
from registry.catalog.schemas import Resolution
from registry.errors import AliasNotFound, BaseModelMismatch, BaseModelNotFound, NotServable, VersionNotFound
from registry.manifest import BaseIdentity, Owner
from registry.models import State, VersionRow
from registry.publishing.layout import final_key
from registry.publishing.publisher import require_manifest


class Catalog:
    """Answers who has what."""

    def __init__(self, database: Database, storage: ObjectStorage, *, download_seconds: int) -> None:
        self._database = database
        self._storage = storage
        self._download_seconds = download_seconds

    async def register_base(self, identity: BaseIdentity, *, actor: str) -> BaseIdentity:
        """Make a base model known; the same one again is no error.

        Raises:
            BaseModelMismatch: when its id is taken by a base with other digests.
        """
        async with self._database.transaction() as session:
            repository = CatalogRepository(session)
            if await repository.add_base(identity):
                repository.record(actor, "register-base", after=identity.id)
                return identity
            known = await repository.get_base(identity.id)
        if known is None or (different := known.differences(identity)):
            field = f"base.{different[0]}" if known else "base.id"
            raise BaseModelMismatch(f"{identity.id!r} is registered with other content; use another id", field=field)
        return known

    async def list_bases(self) -> list[BaseIdentity]:
        """Return every registered base model, by id."""
        async with self._database.transaction() as session:
            return await CatalogRepository(session).list_bases()

    async def show_base(self, base_id: str) -> BaseIdentity:
        """Return one base model.

        Raises:
            BaseModelNotFound: when none is registered under this id.
        """
        async with self._database.reading() as session:
            known = await CatalogRepository(session).get_base(base_id)
        if known is None:
            raise BaseModelNotFound(f"base model {base_id!r} is not registered", field="base_id")
        return known

    async def get_version(self, version_id: str) -> Resolution:
        """Resolve an opaque version id.

        Raises:
            VersionNotFound: when there is none.
            NotServable: when it is not ready.
        """
        async with self._database.transaction() as session:
            row = await CatalogRepository(session).get_version(version_id)
        if row is None:
            raise VersionNotFound(f"there is no version {version_id}", field="version_id")
        return await self._resolution(row)

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

    async def _resolution(self, row: VersionRow) -> Resolution:
        if row.state != State.READY:
            raise NotServable(f"version {row.version_id} is {row.state}")
        manifest = require_manifest(row)
        downloads = {
            file.path: await self._storage.sign_get(
                final_key(manifest, file.path), expires_seconds=self._download_seconds
            )
            for file in manifest.files
        }
        return Resolution(manifest=manifest, downloads=downloads)
