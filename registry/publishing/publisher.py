"""Publishing: begin → upload → complete.

`begin` claims a number for a content; `complete` turns uploaded bytes into a ready version in
five named steps. Each can be repeated, by anyone, any number of times, at once: the tables'
constraints decide who was first, and whoever was not reads the outcome. Whatever dies between any
two steps leaves a version that does not resolve and a publish that can be run again.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

from kit.database import Database
from kit.errors import ObjectConflict, ObjectMissing
from kit.storage import ObjectStorage
from registry.artifact.validation import Limits, check_draft, validate_adapter
from registry.errors import (
    AdapterInvalid,
    ArtifactMissing,
    BaseModelMismatch,
    BaseModelNotFound,
    DigestMismatch,
    NotServable,
    RegistryUnavailable,
    VersionConflict,
    VersionNotFound,
)
from registry.manifest import CONFIG_FILE, WEIGHTS_FILE, BaseIdentity, Draft, Manifest, ManifestFile
from registry.models import State, VersionRow
from registry.publishing.layout import final_key, incoming_key
from registry.publishing.repository import PublishingRepository
from registry.publishing.schemas import FileUpload, Publication
from registry.publishing.verification import VerifiedFile, verify_object

_log = logging.getLogger(__name__)
_UNFINISHED = (State.PENDING, State.UPLOADED)
# Each time round, one of the racing publishers wins a number; so this many may race for one adapter.
_CLAIM_ATTEMPTS = 64


class Publisher:
    """Takes adapters in."""

    def __init__(self, database: Database, storage: ObjectStorage, *, limits: Limits, upload_seconds: int) -> None:
        self._database = database
        self._storage = storage
        self._limits = limits
        self._upload_seconds = upload_seconds

    async def begin(self, draft: Draft, *, actor: str) -> Publication:
        """Claim a version for this content, or find the one that has it already.

        Raises:
            AdapterInvalid: when no upload could make the draft valid.
            BaseModelNotFound: when its base is not registered.
            BaseModelMismatch: when its base is registered with other digests.
            VersionConflict: when it insists on a number that has other content.
        """
        check_draft(draft, limits=self._limits)
        async with self._database.transaction() as session:
            repository = PublishingRepository(session)
            base = await _require_base(repository, draft.base)
            adapter_id = await repository.ensure_adapter(draft.owner, draft.adapter)
            row = await _claim(repository, adapter_id, draft.model_copy(update={"base": base}), actor=actor)
        return await self._publication(row)

    async def complete(self, version_id: str, *, actor: str) -> Manifest:
        """Verify, validate and install what was uploaded, and make the version ready.

        Raises:
            VersionNotFound: when there is no such version.
            ArtifactMissing: when a file was not uploaded.
            DigestMismatch: when a file is not the declared one; upload it again.
            AdapterInvalid: when it is no servable adapter; the version is rejected for good.
            NotServable: when the version was retired, suspended or erased.
        """
        row = await self._require_version(version_id)
        manifest = require_manifest(row)
        if row.state == State.READY:
            await self._drop_uploads(manifest)  # of a publisher that was given URLs before another one finished
            return manifest
        if row.state == State.REJECTED:
            await self._remove_files(manifest)
            raise AdapterInvalid(row.reason, field=row.reason_field)
        if row.state not in _UNFINISHED:
            raise NotServable(f"version {version_id} is {row.state}")
        files = await self.read_uploads(manifest)
        await self.mark_uploaded(manifest)
        await self.validate(manifest, files, actor=actor)
        await self.move_files(manifest, files)
        await self.mark_ready(manifest, actor=actor)
        _log.info("version %s is ready", version_id)
        return manifest

    async def read_uploads(self, manifest: Manifest) -> list[VerifiedFile]:
        """Step 1: find every declared file and read it to its end."""
        return [await self._find(manifest, file) for file in manifest.files]

    async def mark_uploaded(self, manifest: Manifest) -> None:
        """Step 2: remember that every byte has arrived."""
        async with self._database.transaction() as session:
            repository = PublishingRepository(session)
            await repository.set_state(manifest.version_id, State.UPLOADED, was=[State.PENDING])

    async def validate(self, manifest: Manifest, files: Sequence[VerifiedFile], *, actor: str) -> None:
        """Step 3: accept the adapter, or reject the version and remove its files."""
        by_path = {file.path: file for file in files}
        weights = by_path[WEIGHTS_FILE]
        try:
            validate_adapter(
                by_path[CONFIG_FILE].start,
                weights.start,
                weights_size_bytes=weights.size_bytes,
                draft=manifest,
                limits=self._limits,
            )
        except AdapterInvalid as exc:
            await self._reject(manifest, exc, actor=actor)
            raise

    async def move_files(self, manifest: Manifest, files: Sequence[VerifiedFile]) -> None:
        """Step 4: copy exactly the bytes that were verified to their place, check them there, drop the uploads."""
        declared: dict[str, ManifestFile] = {file.path: file for file in manifest.files}
        for file in files:
            target = final_key(manifest, file.path)
            if file.key != target:
                await self._copy(file, target)
                try:
                    await verify_object(self._storage, target, declared=declared[file.path])
                except ObjectMissing as exc:
                    raise ArtifactMissing(f"{file.path} is gone; upload it again", field=file.path) from exc
        await self._drop_uploads(manifest)

    async def mark_ready(self, manifest: Manifest, *, actor: str) -> None:
        """Step 5: make the version resolvable; from here on it is immutable."""
        async with self._database.transaction() as session:
            repository = PublishingRepository(session)
            now = datetime.now(UTC)
            if await repository.set_state(manifest.version_id, State.READY, was=[State.UPLOADED], ready_at=now):
                row = await repository.get_version(manifest.version_id)
                adapter_id = row.adapter_id if row else None
                repository.record(actor, "ready", adapter_id=adapter_id, version_id=manifest.version_id)
                return
        row = await self._require_version(manifest.version_id)
        if row.state != State.READY:  # somebody else finished it, the other way
            raise NotServable(f"version {manifest.version_id} became {row.state} meanwhile")

    async def _find(self, manifest: Manifest, file: ManifestFile) -> VerifiedFile:
        """Return the file's verified place: where it is served from, if an earlier attempt got that far."""
        incoming, final = incoming_key(manifest, file.path), final_key(manifest, file.path)
        try:
            return await verify_object(self._storage, final, declared=file)
        except (ObjectMissing, DigestMismatch):
            pass  # the upload decides
        try:
            return await verify_object(self._storage, incoming, declared=file)
        except ObjectMissing:
            pass  # never uploaded, or moved by somebody who completes the same version right now
        try:
            return await verify_object(self._storage, final, declared=file)
        except ObjectMissing as exc:
            raise ArtifactMissing(f"{file.path} was never uploaded", field=file.path) from exc

    async def _copy(self, file: VerifiedFile, target: str) -> None:
        try:
            await self._storage.copy(file.key, target, etag=file.etag)
        except ObjectMissing:
            return  # another completion has moved it; the caller verifies the target either way
        except ObjectConflict as exc:
            raise DigestMismatch(f"{file.path} was uploaded again meanwhile; complete again", field=file.path) from exc

    async def _reject(self, manifest: Manifest, why: AdapterInvalid, *, actor: str) -> None:
        async with self._database.transaction() as session:
            repository = PublishingRepository(session)
            rejected = await repository.set_state(
                manifest.version_id, State.REJECTED, was=_UNFINISHED, reason=why.message, reason_field=why.field
            )
            if rejected:
                row = await repository.get_version(manifest.version_id)
                adapter_id = row.adapter_id if row else None
                repository.record(
                    actor, "rejected", adapter_id=adapter_id, version_id=manifest.version_id, why=why.message
                )
        if rejected:
            await self._remove_files(manifest)

    async def _drop_uploads(self, manifest: Manifest) -> None:
        for file in manifest.files:
            await self._storage.delete(incoming_key(manifest, file.path))

    async def _remove_files(self, manifest: Manifest) -> None:
        for file in manifest.files:
            await self._storage.delete(incoming_key(manifest, file.path))
            await self._storage.delete(final_key(manifest, file.path))

    async def _require_version(self, version_id: str) -> VersionRow:
        async with self._database.transaction() as session:
            row = await PublishingRepository(session).get_version(version_id)
        if row is None:
            raise VersionNotFound(f"there is no version {version_id}", field="version_id")
        return row

    async def _publication(self, row: VersionRow) -> Publication:
        manifest = require_manifest(row)
        uploads = {}
        for file in manifest.files if row.state in _UNFINISHED else ():
            signed = await self._storage.sign_put(
                incoming_key(manifest, file.path),
                sha256=file.sha256,
                size_bytes=file.size_bytes,
                expires_seconds=self._upload_seconds,
            )
            uploads[file.path] = FileUpload(url=signed.url, headers=signed.headers)
        return Publication(version_id=row.version_id, state=row.state, manifest=manifest, uploads=uploads)


def require_manifest(row: VersionRow) -> Manifest:
    """Return a version's manifest.

    Raises:
        NotServable: when the version was erased, and its manifest with it.
    """
    if row.manifest is None:
        raise NotServable(f"version {row.version_id} was erased")
    return Manifest.model_validate(row.manifest)


async def _require_base(repository: PublishingRepository, declared: BaseIdentity) -> BaseIdentity:
    known = await repository.get_base(declared.id)
    if known is None:
        raise BaseModelNotFound(f"base model {declared.id!r} is not registered; register it first", field="base.id")
    if different := known.differences(declared):
        raise BaseModelMismatch(
            f"the adapter was made for another {known.id!r}: {', '.join(different)} differ",
            field=f"base.{different[0]}",
        )
    return known


async def _claim(repository: PublishingRepository, adapter_id: int, draft: Draft, *, actor: str) -> VersionRow:
    """Return the version that has this content, adding it if nobody else does first."""
    for _ in range(_CLAIM_ATTEMPTS):
        known = await repository.find_content(adapter_id, draft.content_digest)
        if known is not None:
            if draft.version not in (None, known.number):
                raise VersionConflict(f"this content is version {known.number} already", field="version")
            return known
        if draft.version is not None and await repository.get_numbered(adapter_id, draft.version):
            raise VersionConflict(f"version {draft.version} exists with different content", field="version")
        number = draft.version or await repository.next_number(adapter_id)
        added = await repository.add_version(adapter_id, _manifest(draft, number=number))
        if added is not None:
            repository.record(actor, "begin", adapter_id=adapter_id, version_id=added.version_id)
            return added
    raise RegistryUnavailable("too many publishers at once for one adapter; try again")


def _manifest(draft: Draft, *, number: int) -> Manifest:
    declared = draft.model_dump(exclude={"version"})
    version_id = f"v{uuid.uuid4().hex}"
    return Manifest.model_validate(
        {**declared, "version_id": version_id, "version": number, "created_at": datetime.now(UTC)}
    )
