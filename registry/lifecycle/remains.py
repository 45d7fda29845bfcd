"""A version's bytes in the object store, once it is published: are they there, and taking them away."""

from __future__ import annotations

from kit.errors import ObjectMissing
from kit.storage import ObjectStorage
from registry.manifest import Owner
from registry.models import AdapterRow
from registry.publishing.layout import incoming_prefix, version_key

_MARGIN_SECONDS = 900  # an upload that began in time may end late, and two clocks may differ


class Remains:
    """Knows where a version's bytes are, and says when the last of them is gone."""

    def __init__(self, storage: ObjectStorage, *, upload_seconds: float) -> None:
        """Work on `storage`, into which a signed URL lets somebody write for `upload_seconds`."""
        self._storage = storage
        self.settle_seconds = upload_seconds + _MARGIN_SECONDS

    async def damage(self, owner: Owner, version_id: str, *, sealed_bytes: int | None) -> str | None:
        """Return what is wrong with a version's sealed object, by its size alone; None when nothing is."""
        try:
            found = await self._storage.head(version_key(owner, version_id))
        except ObjectMissing:
            return "its object is missing"
        if sealed_bytes is not None and found.size_bytes != sealed_bytes:
            return f"its object has {found.size_bytes} bytes instead of {sealed_bytes}"
        return None

    async def remove(self, owner: Owner, version_id: str) -> int:
        """Remove every byte of a version: sealed and incoming, every S3 version, and uploads that never ended.

        Returns:
            How many objects, S3 versions and uploads there were.
        """
        removed = 0
        for prefix in (version_key(owner, version_id), incoming_prefix(version_id)):
            for upload in await self._storage.multipart.list_unfinished(prefix):
                await self._storage.multipart.abort(upload)
                removed += 1
            removed += await self._storage.erase(prefix)
        return removed

    async def count(self, owner: Owner, version_id: str) -> int:
        """Return how many objects, S3 versions and uploads `remove` would find."""
        found = 0
        for prefix in (version_key(owner, version_id), incoming_prefix(version_id)):
            found += len(await self._storage.multipart.list_unfinished(prefix))
            found += await self._storage.count_versions(prefix)
        return found


def owner_of(adapter: AdapterRow) -> Owner:
    """Return whose adapter it is."""
    return Owner(tenant=adapter.tenant, user=adapter.user_id)
