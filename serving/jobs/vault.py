"""Where results are: one object per user and batch, below the user's prefix, sealed under a key from the registry.

    user's data key ──HKDF──► content key of the version that answered ──HKDF──► key of one batch's result

The registry gives a version's content key only while the version may be served and its owner's data key exists. So a
result is unreadable from the moment that its user is erased, wherever copies of it lie, and removing a user's prefix
removes every result of theirs.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from kit.names import check_name
from kit.sealing import derive_key, seal, unseal
from kit.settings import StorageSettings
from kit.storage import ObjectStorage
from registry.client import RegistryClient


@dataclass(frozen=True, kw_only=True)
class Place:
    """What names one result; `run` tells what a worker wrote that was taken for dead from what counts."""

    tenant: str
    user: str
    batch_id: str
    run: int

    @property
    def key(self) -> str:
        """Where it is in the bucket."""
        return f"{prefix_of(self.tenant, self.user, self.batch_id)}{self.run}"


def prefix_of(tenant: str, user: str, batch_id: str = "") -> str:
    """Return the prefix of everything that batches keep of a user, or of what one batch keeps."""
    below = f"{batch_id}/" if batch_id else ""
    return f"tenants/{check_name(tenant)}/users/{check_name(user)}/extractions/{below}"


class Vault:
    """Puts results into the object store and reads them back. The client of S3 is made when it is first needed."""

    def __init__(self, settings: StorageSettings, registry: RegistryClient) -> None:
        self._settings = settings
        self._registry = registry
        self._storage: ObjectStorage | None = None
        self._opening = asyncio.Lock()

    async def put(self, place: Place, data: bytes, *, version_id: str) -> None:
        """Seal and store one result; again with other bytes replaces it.

        Raises:
            NotServable, VersionNotFound, DataKeyDestroyed: when the registry gives no key of that version.
            RegistryUnavailable, StorageUnavailable: when either does not answer.
        """
        key = await self._key(place, version_id)
        sealed = await asyncio.to_thread(seal, key, data, context=_context(place))
        await (await self._open()).put(place.key, sealed)

    async def get(self, place: Place, *, version_id: str) -> bytes:
        """Return one result.

        Raises:
            ObjectMissing: when it was removed.
            SealBroken: when it is not what was put there.
            NotServable, VersionNotFound, DataKeyDestroyed, RegistryUnavailable, StorageUnavailable: see `put`.
        """
        sealed = await (await self._open()).get(place.key)
        key = await self._key(place, version_id)
        return await asyncio.to_thread(unseal, key, sealed, context=_context(place))

    async def remove(self, place: Place) -> None:
        """Remove one result; one that is not there is no error."""
        await (await self._open()).delete(place.key)

    async def erase(self, tenant: str, user: str, batch_id: str = "") -> int:
        """Remove everything that batches, or one of them, keep of a user, in all S3 versions; return how many."""
        return await (await self._open()).erase(prefix_of(tenant, user, batch_id))

    def close(self) -> None:
        """Let go of the object store."""
        if self._storage is not None:
            self._storage.close()

    async def _key(self, place: Place, version_id: str) -> bytes:
        grant = await self._registry.grant(version_id)
        return derive_key(grant.content_key, f"extraction {place.batch_id}")

    async def _open(self) -> ObjectStorage:
        async with self._opening:
            if self._storage is None:
                self._storage = await asyncio.to_thread(ObjectStorage, self._settings)
            return self._storage


def _context(place: Place) -> bytes:
    return f"{place.batch_id}/{place.user}/{place.run}".encode()
