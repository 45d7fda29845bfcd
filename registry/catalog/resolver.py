"""From a name to a manifest: the call that every request of every gateway makes, and so the shortest.

One statement on unique indexes, no transaction, no second look at JSON that was validated before it was stored: its
text goes from the table to the response as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

from kit.database import Database
from registry.catalog.repository import CatalogRepository, Resolved
from registry.errors import AdapterNotFound, AliasNotFound, NotServable, VersionNotFound
from registry.manifest import MAX_NUMBER, AdapterRef


@dataclass(frozen=True, kw_only=True)
class StoredManifest:
    """A servable version's manifest as it is stored; `text` is its JSON, `digest` the manifest's digest."""

    version_id: str
    text: str
    digest: str


class Resolver:
    """Turns names into manifests."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def resolve(self, ref: AdapterRef) -> StoredManifest:
        """Return the manifest of the version that a reference names.

        Raises:
            AdapterNotFound, AliasNotFound, VersionNotFound: for the first part of the name that is unknown.
            NotServable: when the version is not ready, or it, its adapter or its user is suspended.
        """
        if (ref.version or 0) > MAX_NUMBER:
            raise VersionNotFound(f"{ref} does not exist", field="selector")
        async with self._database.reading() as session:
            found = await CatalogRepository(session).resolve(ref)
        if found is None:
            raise AdapterNotFound(f"{ref.owner.path} has no adapter {ref.adapter}", field="adapter")
        if found.version_id is None:
            missing = AliasNotFound if ref.version is None else VersionNotFound
            raise missing(f"{ref} does not exist", field="selector")
        return _servable(found)

    async def resolve_id(self, version_id: str) -> StoredManifest:
        """Return the manifest of a version by its opaque id.

        Raises:
            VersionNotFound: when there is none.
            NotServable: as for `resolve`.
        """
        async with self._database.reading() as session:
            found = await CatalogRepository(session).resolve_id(version_id)
        if found is None:
            raise VersionNotFound(f"there is no version {version_id}", field="version_id")
        return _servable(found)


def _servable(found: Resolved) -> StoredManifest:
    if found.obstacle is not None or found.manifest is None or found.manifest_digest is None:
        obstacle = found.obstacle or "erased"
        raise NotServable(f"version {found.version_id} may not be served: {obstacle}", obstacle=obstacle)
    return StoredManifest(version_id=str(found.version_id), text=found.manifest, digest=found.manifest_digest)
