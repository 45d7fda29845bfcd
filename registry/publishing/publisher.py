"""Publishing: begin → upload → complete.

`begin` claims a number for a content; `complete` turns uploaded bytes into a ready version in five named steps. Each
can be repeated, by anyone, any number of times, at once: the tables' constraints and the store's conditional writes
decide who was first, and whoever was not reads the outcome. Whatever dies between any two steps leaves a version that
does not resolve and a publish that can be run again.

A publisher that can seal sends its object straight to where it is served from; the store takes one object for a key,
and nothing is ever written over it. So a publish costs the store one PUT and one GET. For a publisher that cannot, or
whose adapter is large, the weights land in the open under ``incoming/``, and the registry seals them as it reads them.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from kit.canonical import canonical_json
from kit.database import Database
from kit.errors import ObjectConflict, ObjectMissing
from kit.sealing import sealed_size
from kit.storage import ObjectStorage
from registry.artifact.findings import ValidationReport
from registry.artifact.signature import Signer
from registry.artifact.validation import Limits
from registry.errors import (
    AdapterInvalid,
    DataKeyDestroyed,
    DigestMismatch,
    NotServable,
    RegistryError,
    RegistryUnavailable,
    SignatureInvalid,
    VersionNotFound,
)
from registry.manifest import WEIGHTS_FILE, Draft, Manifest
from registry.models import State, VersionRow
from registry.publishing.claiming import Claim, require_base, require_policy, require_sound
from registry.publishing.cleaner import Cleaner
from registry.publishing.intake import Intake, Received, Unfinished
from registry.publishing.layout import incoming_key, incoming_prefix, sealed_key
from registry.publishing.repository import Claimed, PublishingRepository
from registry.publishing.schemas import PartDigest, Preference, Publication, SignedParts, Validation
from registry.publishing.uploads import Uploads
from registry.sealing.data_keys import DataKey, DataKeys, content_key

_log = logging.getLogger(__name__)
_UNFINISHED = (State.PENDING, State.UPLOADED)
_ATTEMPTS = 5


@dataclass(frozen=True, kw_only=True)
class PublishingOptions:
    """What an operator decides about publishing."""

    limits: Limits
    upload_seconds: int
    concurrent_completes: int = 4
    scan: bool = False
    note_seconds: float = 3600  # a publish that goes on is noted this often


class Publisher:
    """Takes adapters in."""

    def __init__(
        self,
        database: Database,
        storage: ObjectStorage,
        data_keys: DataKeys,
        *,
        options: PublishingOptions,
        signer: Signer | None = None,
    ) -> None:
        self._database = database
        self._storage = storage
        self._data_keys = data_keys
        self._options = options
        self._signer = signer
        self._uploads = Uploads(database, storage, expires_seconds=options.upload_seconds)
        self._intake = Intake(storage, limits=options.limits, scan=options.scan)
        self._cleaner = Cleaner(storage)
        self._slots = asyncio.Semaphore(options.concurrent_completes)

    async def close(self) -> None:
        """Finish what runs in the background."""
        await self._cleaner.close()

    async def begin(self, draft: Draft, *, preference: Preference = Preference.OPEN, actor: str) -> Publication:
        """Claim a version for this content, or find the one that has it already.

        Raises:
            AdapterInvalid: when no upload could make the draft valid.
            DigestMismatch: when the draft's configuration is not the one that it declares.
            BaseModelNotFound, BaseModelMismatch, BaseModelIncomplete: when its base is not registered as declared.
            VersionConflict: when it insists on a number that has other content.
            InvalidReference: when it insists on a number far above the largest in use.
            LimitReached, SignatureInvalid: when the tenant's policy forbids it.
            RegistryUnavailable: when the owner is being erased again and again.
        """
        config = require_sound(draft, limits=self._options.limits)
        for _ in range(_ATTEMPTS):
            try:
                known, data_key = await self._claim(draft, config, actor=actor)
            except DataKeyDestroyed:
                continue  # the owner was erased since: there is a new key to make
            if isinstance(known, Manifest) or known.state not in _UNFINISHED:
                return await self._publication(known, data_key, preference=preference)
            if await self._go_on(known.version_id, actor=actor):
                return await self._publication(known, data_key, preference=preference)
        raise RegistryUnavailable("what is published is being taken away at the same time; try again")

    async def _claim(self, draft: Draft, config: bytes, *, actor: str) -> tuple[VersionRow | Manifest, DataKey]:
        limits = self._options.limits
        async with self._database.reading() as session:
            standing = await PublishingRepository(session).look(draft.owner, draft.adapter, base_id=draft.base.id)
        base = require_base(standing.base, draft.base)
        policy = require_policy(standing.policy, draft, limits=limits, signs=self._signer is not None)
        key = None
        if standing.key is not None:
            key = DataKey(id=standing.key.id, secret=await self._data_keys.unwrap(standing.key))
        named = draft.model_copy(update={"base": base})
        async with self._database.transaction() as session:
            repository = PublishingRepository(session)
            if key is None:
                key = await self._data_keys.make(session, draft.owner)
            elif not await repository.share_key(key.id):
                raise DataKeyDestroyed
            claim = Claim(draft=named, config=config, policy=policy, data_key_id=key.id, actor=actor)
            return await claim.make(repository, standing), key

    async def _go_on(self, version_id: str, *, actor: str) -> bool:
        """Keep reconcile from giving up a publish that somebody goes on with; False = it ended meanwhile."""
        async with self._database.transaction() as session:
            return await PublishingRepository(session).begin_again(
                version_id, within_seconds=self._options.note_seconds, actor=actor
            )

    async def _publication(
        self, known: VersionRow | Manifest, data_key: DataKey, *, preference: Preference
    ) -> Publication:
        is_new = isinstance(known, Manifest)
        manifest = known if isinstance(known, Manifest) else require_manifest(known)
        state = State.PENDING if isinstance(known, Manifest) else State(known.state)
        upload = None
        if state in _UNFINISHED:
            secret = data_key.secret
            if isinstance(known, VersionRow) and known.data_key_id != data_key.id:
                secret = await self._data_keys.open(known.data_key_id or "")
            key = content_key(secret, manifest.version_id)
            upload = await self._uploads.offer(manifest, preference=preference, content_key=key, is_new=is_new)
        return Publication(version_id=manifest.version_id, state=state, manifest=manifest, upload=upload)

    async def sign_parts(self, version_id: str, parts: tuple[PartDigest, ...], *, actor: str) -> SignedParts:
        """Return URLs for parts of weights that are too large for one PUT.

        Raises:
            VersionNotFound: when there is no such version.
            NotServable: when it takes no parts.
            InvalidReference: for a number that is none of its parts.
        """
        row = (await self._require_version(version_id)).row
        if row.state not in _UNFINISHED or not await self._go_on(version_id, actor=actor):
            raise NotServable(f"version {version_id} is not being published; it takes no parts")
        return await self._uploads.sign_parts(require_manifest(row), (row.validation or {}).get("upload_id"), parts)

    async def complete(self, version_id: str, *, actor: str) -> Manifest:
        """Verify, validate and seal what was uploaded, and make the version ready.

        Raises:
            VersionNotFound: when there is no such version.
            ArtifactMissing: when nothing was uploaded, or not all of it.
            DigestMismatch: when the upload is not the declared one; upload it again.
            AdapterInvalid: when it is no servable adapter; the version is rejected for good.
            NotServable: when the version was retired, suspended or erased.
        """
        async with self._slots:
            claimed = await self._require_version(version_id)
            row, manifest = claimed.row, require_manifest(claimed.row)
            if row.state == State.READY:
                self._drop_upload(manifest)  # of a publisher that was given a URL before another one finished
                return manifest
            if row.state == State.REJECTED:
                raise _rejection(row)
            if row.state not in _UNFINISHED:
                raise NotServable(f"version {version_id} is {row.state}")
            came_in_the_open = await self._complete(await self._unfinished(claimed, manifest), actor=actor)
            if came_in_the_open or row.state == State.UPLOADED:  # whoever sealed it may have died before this
                self._drop_upload(manifest)
        _log.info("version %s is ready", version_id)
        return manifest

    async def get_validation(self, version_id: str) -> Validation:
        """Return what was found when a version was completed.

        Raises:
            VersionNotFound: when there is no such version.
        """
        row = (await self._require_version(version_id)).row
        found = row.validation if row.state not in _UNFINISHED else None
        report = ValidationReport.model_validate(found) if found else None
        return Validation(version_id=version_id, state=row.state, reason=row.reason, report=report)

    async def _complete(self, version: Unfinished, *, actor: str) -> bool:
        """Go through the five steps; say whether the upload had come in the open."""
        received = None
        try:
            received = await self.receive(version)
            if received.sink is not None:  # what came sealed is where it belongs: it is uploaded and ready at once
                await self.mark_uploaded(version.manifest, actor=actor)
            await self.judge(version.manifest, received.report, actor=actor)
            await self.place(version, received)
            await self.mark_ready(version, received.report, actor=actor)
            return received.sink is not None
        finally:
            if received is not None and received.sink is not None:
                await received.sink.discard()

    async def receive(self, version: Unfinished) -> Received:
        """Step 1: find the upload, read it to its end, and seal it where its publisher did not."""
        try:
            return await self._intake.receive(version)
        except DigestMismatch:
            await self._drop_damaged(version)
            raise

    async def mark_uploaded(self, manifest: Manifest, *, actor: str) -> None:
        """Step 2: remember that every byte has arrived, before the sealed object is written."""
        async with self._database.transaction() as session:
            await PublishingRepository(session).mark_uploaded(manifest.version_id, actor=actor)

    async def judge(self, manifest: Manifest, report: ValidationReport, *, actor: str) -> None:
        """Step 3: accept the adapter, or reject the version and remove its bytes.

        Raises:
            AdapterInvalid: with every finding in its details.
        """
        try:
            report.require()
        except AdapterInvalid as exc:
            async with self._database.transaction() as session:
                repository = PublishingRepository(session)
                await repository.mark_uploaded(manifest.version_id, actor=actor)
                rejected = await repository.reject(manifest, report, reason=exc.message, field=exc.field, actor=actor)
            if rejected:  # and so nobody can make it ready any more
                await self._storage.delete(sealed_key(manifest))
                self._drop_upload(manifest)
            raise

    async def place(self, version: Unfinished, received: Received) -> None:
        """Step 4: make what the registry sealed visible where it is served from; what came sealed is there."""
        if received.sink is None:
            return
        try:
            await received.sink.commit()
        except ObjectConflict:
            # Somebody completes the same version at the same time, or was killed after this step.
            try:
                await self._intake.read_sealed(version)
            except DigestMismatch:
                await self._drop_damaged(version)
                raise

    async def mark_ready(self, version: Unfinished, report: ValidationReport, *, actor: str) -> None:
        """Step 5: make the version resolvable; from here on it is immutable.

        Raises:
            AdapterInvalid, SignatureInvalid: when the tenant's policy has come to forbid it since it was begun.
            NotServable: when it was erased or rejected meanwhile; what this call has put into the store is removed.
        """
        manifest = version.manifest
        signature = self._signer.sign(manifest) if self._signer else None
        refusal: RegistryError | None = None
        async with self._database.transaction() as session:
            repository = PublishingRepository(session)
            await repository.mark_uploaded(manifest.version_id, actor=actor)
            policy = await repository.get_policy(manifest.owner.tenant)
            try:
                require_policy(policy, manifest, limits=self._options.limits, signs=signature is not None)
            except (AdapterInvalid, SignatureInvalid) as exc:
                refusal = exc  # raised once it is stored that all has arrived
            else:
                ready = await repository.make_ready(
                    manifest, report, sealed_bytes=sealed_size(version.plain_bytes), signature=signature, actor=actor
                )
        if refusal is not None:
            raise refusal
        if not ready:  # somebody else finished it
            row = (await self._require_version(manifest.version_id)).row
            if row.state in (State.ERASED, State.REJECTED):
                await self._storage.erase(sealed_key(manifest))
                await self._storage.erase(incoming_prefix(manifest.version_id))
            if row.state == State.REJECTED:
                raise _rejection(row)
            if row.state != State.READY:
                raise NotServable(f"version {manifest.version_id} became {row.state} meanwhile")

    async def _drop_damaged(self, version: Unfinished) -> None:
        """Remove an upload that is not the declared content, so that it can be sent again.

        It is read once more, since another publisher may have sent a good one. Nothing is written over a sealed object,
        so what was read is what is removed if it has the same ETag still, under the row's lock: nobody waits for more.
        """
        manifest = version.manifest
        damaged = await self._find_damaged(version)
        async with self._database.transaction() as session:
            repository = PublishingRepository(session)
            row = await repository.lock_version(manifest.version_id)
            if row is None or row.state not in _UNFINISHED:
                return
            try:
                found = await self._storage.head(sealed_key(manifest))
                if found.etag == damaged:
                    await self._storage.delete(sealed_key(manifest))
            except ObjectMissing:
                if version.upload_id is not None:  # parts that were joined and are wrong: they have to come anew
                    await self._storage.delete(incoming_key(manifest, WEIGHTS_FILE))
                    pending = {name: value for name, value in (row.validation or {}).items() if name != "upload_id"}
                    await repository.set_pending(manifest.version_id, pending)

    async def _find_damaged(self, version: Unfinished) -> str | None:
        """Return the ETag of a sealed object that is not the declared content; None when there is none."""
        try:
            etag = (await self._storage.head(sealed_key(version.manifest))).etag
            await self._intake.read_sealed(version)
        except DigestMismatch:
            return etag
        except ObjectMissing:
            pass
        return None

    def _drop_upload(self, manifest: Manifest) -> None:
        self._cleaner.remove([incoming_key(manifest, WEIGHTS_FILE)])

    async def _unfinished(self, claimed: Claimed, manifest: Manifest) -> Unfinished:
        if claimed.key is None:
            raise DataKeyDestroyed
        pending = claimed.row.validation or {}
        return Unfinished(
            manifest=manifest,
            config=canonical_json(pending.get("config")),
            base=claimed.shape,
            content_key=content_key(await self._data_keys.unwrap(claimed.key), manifest.version_id),
            upload_id=pending.get("upload_id"),
        )

    async def _require_version(self, version_id: str) -> Claimed:
        async with self._database.reading() as session:
            found = await PublishingRepository(session).get_publish(version_id)
        if found is None:
            raise VersionNotFound(f"there is no version {version_id}", field="version_id")
        return found


def require_manifest(row: VersionRow) -> Manifest:
    """Return a version's manifest.

    Raises:
        NotServable: when the version was erased, and its manifest with it.
    """
    if row.manifest is None:
        raise NotServable(f"version {row.version_id} was erased")
    return Manifest.model_validate(row.manifest)


def _rejection(row: VersionRow) -> AdapterInvalid:
    """Return why a version was rejected, as it was said the first time."""
    report = ValidationReport.model_validate(row.validation) if row.validation else ValidationReport()
    try:
        report.require()
    except AdapterInvalid as exc:
        return exc
    return AdapterInvalid(row.reason, field=row.reason_field)
