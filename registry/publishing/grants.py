"""Handing out what it takes to install a version: a short-lived URL, and the key of this version's content."""

from __future__ import annotations

from datetime import timedelta

from kit.database import Database
from kit.storage import ObjectStorage
from registry.errors import DataKeyDestroyed, NotServable, VersionNotFound
from registry.publishing.layout import sealed_key
from registry.publishing.publisher import require_manifest
from registry.publishing.repository import PublishingRepository
from registry.publishing.schemas import Grant, encode_key
from registry.sealing.data_keys import DataKeys, content_key


class Grants:
    """Decides who may read which content."""

    def __init__(
        self, database: Database, storage: ObjectStorage, data_keys: DataKeys, *, download_seconds: int
    ) -> None:
        self._database = database
        self._storage = storage
        self._data_keys = data_keys
        self._download_seconds = download_seconds

    async def grant(self, version_id: str) -> Grant:
        """Return where a version's sealed object is and what opens it.

        Raises:
            VersionNotFound: when there is no such version.
            NotServable: when it is not ready, or it or its owner is suspended.
            DataKeyDestroyed: when nobody can read it any more.
        """
        async with self._database.reading() as session:
            held = await PublishingRepository(session).get_held(version_id)
        if held is None:
            raise VersionNotFound(f"there is no version {version_id}", field="version_id")
        if held.obstacle is not None or held.row.sealed_bytes is None:
            obstacle = held.obstacle or "not sealed"
            raise NotServable(f"version {version_id} may not be served: {obstacle}", obstacle=obstacle)
        if held.key is None:
            raise DataKeyDestroyed
        manifest = require_manifest(held.row)
        secret = await self._data_keys.unwrap(held.key)
        return Grant(
            manifest=manifest,
            url=await self._storage.sign_get(sealed_key(manifest), expires_seconds=self._download_seconds),
            content_key=encode_key(content_key(secret, version_id)),
            sealed_bytes=held.row.sealed_bytes,
            expires_at=held.now + timedelta(seconds=self._download_seconds),
            signature=held.row.signature,
        )
