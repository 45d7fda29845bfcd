"""Where a publisher may put an adapter's bytes: sealed at once, in the open at once, or in the open in parts."""

from __future__ import annotations

from datetime import datetime

from kit.database import Database
from kit.errors import ObjectMissing
from kit.multipart import Upload as StoredUpload
from kit.sealing import sealed_size
from kit.storage import ObjectStorage
from registry.errors import InvalidReference, NotServable
from registry.manifest import WEIGHTS_FILE, Manifest
from registry.publishing.layout import incoming_key, sealed_key
from registry.publishing.parts import comes_in_parts, part_sizes
from registry.publishing.repository import PublishingRepository
from registry.publishing.schemas import (
    OpenUpload,
    PartDigest,
    PartsUpload,
    Preference,
    SealedUpload,
    SignedPart,
    SignedParts,
    Upload,
    encode_key,
)


class Uploads:
    """Signs URLs. Their life counts by the database's clock: one host's may be wrong."""

    def __init__(self, database: Database, storage: ObjectStorage, *, expires_seconds: int) -> None:
        self._database = database
        self._storage = storage
        self._expires_seconds = expires_seconds

    async def offer(
        self, manifest: Manifest, *, preference: Preference, content_key: bytes, is_new: bool
    ) -> Upload | None:
        """Return where the bytes of an unfinished version go; None when they are there, and wait to be completed."""
        if not is_new and await self._is_there(sealed_key(manifest)):
            return None
        if comes_in_parts(manifest):
            return await self._offer_parts(manifest)
        now = manifest.created_at if is_new else await self._now()
        if preference is Preference.SEALED:
            return await self._offer_sealed(manifest, content_key, now=now)
        weights = next(file for file in manifest.files if file.path == WEIGHTS_FILE)
        signed = await self._storage.sign_put(
            incoming_key(manifest, WEIGHTS_FILE),
            sha256=weights.sha256,
            size_bytes=weights.size_bytes,
            expires_seconds=self._expires_seconds,
            now=now,
        )
        return OpenUpload(url=signed.url, headers=signed.headers)

    async def sign_parts(
        self, manifest: Manifest, upload_id: str | None, wanted: tuple[PartDigest, ...]
    ) -> SignedParts:
        """Return a URL for each wanted part; the store refuses other bytes than these digests and sizes.

        Raises:
            NotServable: when the version takes no parts.
            InvalidReference: for a number that is none of its parts.
        """
        if upload_id is None:
            raise NotServable(f"version {manifest.version_id} takes no parts")
        upload, sizes, signed = (
            StoredUpload(key=incoming_key(manifest, WEIGHTS_FILE), id=upload_id),
            part_sizes(manifest),
            [],
        )
        now = await self._now()
        for part in wanted:
            if part.number not in sizes:
                raise InvalidReference(f"there are {len(sizes)} parts, and no part {part.number}", field="parts")
            one = await self._storage.multipart.sign_part(
                upload,
                part.number,
                sha256=part.sha256,
                size_bytes=sizes[part.number],
                expires_seconds=self._expires_seconds,
                now=now,
            )
            signed.append(SignedPart(number=part.number, url=one.url, headers=one.headers))
        return SignedParts(parts=tuple(signed))

    async def _offer_sealed(self, manifest: Manifest, content_key: bytes, *, now: datetime) -> SealedUpload:
        size_bytes = sealed_size(sum(file.size_bytes for file in manifest.files))
        signed = await self._storage.sign_put(
            sealed_key(manifest),
            size_bytes=size_bytes,
            only_if_absent=True,
            expires_seconds=self._expires_seconds,
            now=now,
        )
        return SealedUpload(url=signed.url, headers=signed.headers, content_key=encode_key(content_key))

    async def _offer_parts(self, manifest: Manifest) -> PartsUpload:
        key = incoming_key(manifest, WEIGHTS_FILE)
        upload_id = await self._ensure_upload(manifest, key)
        try:
            parts = await self._storage.multipart.list_parts(StoredUpload(key=key, id=upload_id))
        except ObjectMissing:  # they were joined: by a completion that went no further
            arrived = tuple(part_sizes(manifest)) if await self._is_there(key) else ()
            if not arrived:
                await self._forget_upload(manifest, upload_id)
                return await self._offer_parts(manifest)
        else:
            sizes = part_sizes(manifest)
            arrived = tuple(part.number for part in parts if sizes.get(part.number) == part.size_bytes)
        return PartsUpload(part_bytes=part_sizes(manifest)[1], arrived=arrived)

    async def _ensure_upload(self, manifest: Manifest, key: str) -> str:
        """Return the id of the version's one multipart upload, beginning it if nobody has."""
        async with self._database.transaction() as session:
            row = await PublishingRepository(session).get_version(manifest.version_id)
            known = (row.validation or {}).get("upload_id") if row else None
        if known is not None:
            return str(known)
        begun = await self._storage.multipart.begin(key)
        async with self._database.transaction() as session:
            repository = PublishingRepository(session)
            row = await repository.lock_version(manifest.version_id)
            pending = (row.validation or {}) if row else {}
            if "upload_id" not in pending:
                await repository.set_pending(manifest.version_id, {**pending, "upload_id": begun.id})
                return begun.id
        await self._storage.multipart.abort(begun)  # another publisher of the same content was faster
        return str(pending["upload_id"])

    async def _forget_upload(self, manifest: Manifest, upload_id: str) -> None:
        async with self._database.transaction() as session:
            repository = PublishingRepository(session)
            row = await repository.lock_version(manifest.version_id)
            pending = (row.validation or {}) if row else {}
            if pending.get("upload_id") == upload_id:
                left = {name: value for name, value in pending.items() if name != "upload_id"}
                await repository.set_pending(manifest.version_id, left)

    async def _now(self) -> datetime:
        async with self._database.reading() as session:
            return await PublishingRepository(session).now()

    async def _is_there(self, key: str) -> bool:
        try:
            await self._storage.head(key)
        except ObjectMissing:
            return False
        return True
