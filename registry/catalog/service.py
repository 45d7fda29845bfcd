"""Reading: base models, resolve, listings."""

from __future__ import annotations

from kit.database import Database
from kit.storage import ObjectStorage
from registry.catalog.repository import CatalogRepository
from registry.catalog.schemas import AdapterPage, AdapterSummary, Resolution, VersionSummary
from registry.errors import (
    AdapterNotFound,
    AliasNotFound,
    BaseModelMismatch,
    InvalidReference,
    NotServable,
    VersionNotFound,
)
from registry.manifest import MAX_NUMBER, AdapterRef, BaseIdentity, Owner
from registry.models import State, VersionRow
from registry.publishing.layout import final_key
from registry.publishing.publisher import require_manifest

_MAX_VERSIONS_LISTED = 1000


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

    async def resolve(self, ref: AdapterRef) -> Resolution:
        """Turn a name into a manifest and URLs to read its files.

        Raises:
            AdapterNotFound, AliasNotFound, VersionNotFound: for the first part of the name that is unknown.
            NotServable: when the version is not ready.
        """
        async with self._database.transaction() as session:
            repository = CatalogRepository(session)
            row = None if (ref.version or 0) > MAX_NUMBER else await repository.resolve(ref)
            if row is None:
                raise await _not_resolved(repository, ref)
        return await self._resolution(row)

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
            found = await repository.get_alias(await _require_adapter(repository, owner, adapter), alias)
        if found is None:
            raise AliasNotFound(f"adapter {adapter} of user {owner.user} has no alias {alias}", field="alias")
        return found

    async def list_adapters(self, tenant: str, *, user: str | None, cursor: str | None, limit: int) -> AdapterPage:
        """Return one page of a tenant's adapters, in the order they were created.

        Raises:
            InvalidReference: for a cursor that no earlier page gave.
        """
        after = _read_cursor(cursor)
        async with self._database.transaction() as session:
            repository = CatalogRepository(session)
            rows = await repository.list_adapters(tenant, user=user, after=after, limit=limit + 1)
            aliases = await repository.list_aliases([row.id for row in rows])
        adapters = tuple(
            AdapterSummary(
                owner=Owner(tenant=row.tenant, user=row.user_id),
                adapter=row.name,
                created_at=row.created_at,
                aliases=aliases.get(row.id, {}),
            )
            for row in rows[:limit]
        )
        return AdapterPage(adapters=adapters, next_cursor=str(rows[limit - 1].id) if len(rows) > limit else None)

    async def list_versions(self, owner: Owner, adapter: str) -> list[VersionSummary]:
        """Return an adapter's versions in every state, the newest first, at most 1000.

        Raises:
            AdapterNotFound: when the user has no such adapter.
        """
        async with self._database.transaction() as session:
            repository = CatalogRepository(session)
            adapter_id = await _require_adapter(repository, owner, adapter)
            rows = await repository.list_versions(adapter_id, limit=_MAX_VERSIONS_LISTED)
        return [
            VersionSummary(
                version_id=row.version_id,
                version=row.number,
                state=row.state,
                content_digest=row.content_digest,
                size_bytes=row.size_bytes,
                created_at=row.created_at,
                ready_at=row.ready_at,
                reason=row.reason,
            )
            for row in rows
        ]

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


async def _require_adapter(repository: CatalogRepository, owner: Owner, adapter: str) -> int:
    found = await repository.get_adapter(owner, adapter)
    if found is None:
        raise AdapterNotFound(f"user {owner.user} has no adapter {adapter}", field="adapter")
    return found


async def _not_resolved(repository: CatalogRepository, ref: AdapterRef) -> Exception:
    await _require_adapter(repository, ref.owner, ref.adapter)
    if ref.version is not None:
        return VersionNotFound(f"{ref} does not exist", field="selector")
    return AliasNotFound(f"{ref} does not exist", field="selector")


def _read_cursor(cursor: str | None) -> int:
    if cursor is None:
        return 0
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) <= 18):
        raise InvalidReference("that cursor was not given by an earlier page", field="cursor")
    return int(cursor)
