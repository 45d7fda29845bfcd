"""Handing out what it takes to install a version: a short-lived URL, and the key of this version's content."""

from __future__ import annotations

from datetime import timedelta

from kit.database import Database
from kit.storage import ObjectStorage
from registry.engines.repository import EngineRepository
from registry.engines.schemas import Presence
from registry.errors import BaseModelMismatch, DataKeyDestroyed, EngineNotFound, NotServable, VersionNotFound
from registry.manifest import Manifest
from registry.publishing.layout import sealed_key
from registry.publishing.publisher import require_manifest
from registry.publishing.repository import Held, PublishingRepository
from registry.publishing.schemas import Grant, encode_key
from registry.sealing.data_keys import DataKeys, content_key


class Grants:
    """Decides who may read which content."""

    def __init__(
        self,
        database: Database,
        storage: ObjectStorage,
        data_keys: DataKeys,
        *,
        download_seconds: int,
        lease_seconds: float,
    ) -> None:
        """Sign URLs that live for `download_seconds`; an engine that is silent for `lease_seconds` gets none."""
        self._database = database
        self._storage = storage
        self._data_keys = data_keys
        self._download_seconds = download_seconds
        self._lease_seconds = lease_seconds

    async def grant(self, version_id: str, *, engine: Presence | None = None) -> Grant:
        """Return where a version's sealed object is and what opens it; for an engine, note that it holds that now.

        Raises:
            EngineNotFound: when the engine is not registered, has lapsed, or is not the start that it says.
            BaseModelMismatch: when the engine serves another base model than the version's.
            VersionNotFound: when there is no such version.
            NotServable: when it is not ready, or it or its owner is suspended.
            DataKeyDestroyed: when nobody can read it any more.
        """
        if engine is None:
            async with self._database.reading() as session:
                held, manifest = _require_held(await PublishingRepository(session).get_held(version_id), version_id)
        else:
            held, manifest = await self._admit(engine, version_id)
        assert held.key is not None
        assert held.row.sealed_bytes is not None
        secret = await self._data_keys.unwrap(held.key)
        return Grant(
            manifest=manifest,
            url=await self._storage.sign_get(
                sealed_key(manifest), expires_seconds=self._download_seconds, now=held.now
            ),
            content_key=encode_key(content_key(secret, version_id)),
            sealed_bytes=held.row.sealed_bytes,
            expires_at=held.now + timedelta(seconds=self._download_seconds),
            signature=held.row.signature,
        )

    async def _admit(self, engine: Presence, version_id: str) -> tuple[Held, Manifest]:
        """Return a version that an engine may have, after noting it among what that engine holds."""
        async with self._database.transaction() as session:
            engines = EngineRepository(session, lease_seconds=self._lease_seconds)
            base = await engines.find_base(engine)
            if base is None:
                raise EngineNotFound("only an engine that is registered and alive gets versions", field="engine_id")
            held, manifest = _require_held(await PublishingRepository(session).get_held(version_id), version_id)
            if different := [name for name, digest in manifest.base.digests().items() if base.get(name) != digest]:
                raise BaseModelMismatch(
                    f"the version was made for another base model than the engine's: {', '.join(different)} differ",
                    field="version_id",
                )
            await engines.note_grant(engine.engine_id, version_id)
        return held, manifest


def _require_held(held: Held | None, version_id: str) -> tuple[Held, Manifest]:
    if held is None:
        raise VersionNotFound(f"there is no version {version_id}", field="version_id")
    if held.obstacle is not None or held.row.sealed_bytes is None:
        obstacle = held.obstacle or "not sealed"
        raise NotServable(f"version {version_id} may not be served: {obstacle}", obstacle=obstacle)
    if held.key is None:
        raise DataKeyDestroyed
    return held, require_manifest(held.row)
