"""Step 1 of completing: read what was uploaded, once, in bounded memory. Is it what was declared? Can it be served?"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from kit.errors import ObjectConflict, ObjectMissing, SealBroken
from kit.multipart import Upload
from kit.sealing import Fill, Opener, open_stream, sealed_size
from kit.storage import ObjectStorage
from registry.artifact.findings import Finding, ValidationReport
from registry.artifact.scanning import Scan
from registry.artifact.validation import CHECKS, Limits, WeightsInspector, check_config
from registry.errors import ArtifactMissing, DigestMismatch
from registry.manifest import CONFIG_FILE, WEIGHTS_FILE, BaseShape, Manifest
from registry.publishing.layout import incoming_key, sealed_key
from registry.publishing.parts import missing_parts
from registry.publishing.reading import VersionReader
from registry.publishing.sink import SealedSink

_AT_ONCE_BYTES = 16 << 20


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """A version that is to be completed; `upload_id` belongs to weights that come in parts."""

    manifest: Manifest
    config: bytes
    base: BaseShape | None
    content_key: bytes = field(repr=False)
    upload_id: str | None = None

    @property
    def context(self) -> bytes:
        """What the seal is bound to."""
        return self.manifest.version_id.encode()

    @property
    def plain_bytes(self) -> int:
        """The sum of the files' sizes."""
        return sum(file.size_bytes for file in self.manifest.files)


@dataclass(frozen=True, kw_only=True)
class Received:
    """Bytes that are the declared ones, and what was found in them; `sink` holds them where they are not sealed yet."""

    report: ValidationReport
    sink: SealedSink | None = None


class Intake:
    """Reads uploads."""

    def __init__(self, storage: ObjectStorage, *, limits: Limits, scan: bool = False) -> None:
        self._storage = storage
        self._limits = limits
        self._scan = scan

    async def receive(self, version: Unfinished) -> Received:
        """Find the upload, sealed or in the open, and read it to its end.

        Raises:
            ArtifactMissing: when there is none, or parts of it have not arrived.
            DigestMismatch: when it is not the declared content.
        """
        try:
            return Received(report=await self.read_sealed(version))
        except ObjectMissing:
            pass  # it was uploaded in the open, or not at all
        try:
            return await self._read_open(version)
        except ObjectMissing:
            pass  # never uploaded, or sealed and removed by somebody who completes the same version right now
        try:
            return Received(report=await self.read_sealed(version))
        except ObjectMissing as exc:
            raise ArtifactMissing(f"{WEIGHTS_FILE} was never uploaded", field=WEIGHTS_FILE) from exc

    async def read_sealed(self, version: Unfinished) -> ValidationReport:
        """Read the sealed object through its seal.

        Raises:
            ObjectMissing: when there is none.
            DigestMismatch: when it cannot be opened, or holds something else than was declared.
        """
        key = sealed_key(version.manifest)
        try:
            if sealed_size(version.plain_bytes) <= _AT_ONCE_BYTES:
                return await self._storage.read(key, partial(self._look_through, version))
            return await self._stream_through(version, key)
        except SealBroken as exc:
            raise DigestMismatch(f"the sealed upload cannot be opened: {exc.message}", field=WEIGHTS_FILE) from exc

    def _look_through(self, version: Unfinished, fill: Fill) -> ValidationReport:
        """Open what was sealed and look at it, chunk by chunk, while it stays in the processor's cache."""
        with closing(_Look(version, limits=self._limits, scan=self._scan)) as look:
            for piece in open_stream(fill, version.content_key, context=version.context):
                look.update(piece)
            return look.finish()

    async def _stream_through(self, version: Unfinished, key: str) -> ValidationReport:
        """Do the same for what is so large that a read of it which breaks off has to go on from where it was."""
        opener = Opener(version.content_key, context=version.context)
        with closing(_Look(version, limits=self._limits, scan=self._scan)) as look:
            async for chunk in self._storage.stream(key):
                await asyncio.to_thread(lambda data: look.update(opener.update(data)), chunk)
            return await asyncio.to_thread(lambda: look.finish(opener.finish()))

    async def _read_open(self, version: Unfinished) -> Received:
        """Read the weights as they were uploaded, and seal them on the way."""
        await self._join_parts(version)
        sink = SealedSink(
            self._storage,
            sealed_key(version.manifest),
            key=version.content_key,
            context=version.context,
            plain_bytes=version.plain_bytes,
        )
        look = _Look(version, limits=self._limits, scan=self._scan)
        try:
            async for chunk in self._files(version):
                await asyncio.to_thread(look.update, chunk)
                await sink.update(chunk)
            return Received(report=await asyncio.to_thread(look.finish), sink=sink)
        except BaseException as exc:
            await sink.discard()
            if isinstance(exc, ObjectConflict):
                raise DigestMismatch("the upload changed while it was being read", field=WEIGHTS_FILE) from exc
            raise
        finally:
            look.close()

    async def _files(self, version: Unfinished) -> AsyncIterator[bytes]:
        for file in version.manifest.files:
            if file.path == CONFIG_FILE:
                yield version.config
            else:
                async for chunk in self._storage.stream(incoming_key(version.manifest, file.path)):
                    yield chunk

    async def _join_parts(self, version: Unfinished) -> None:
        if version.upload_id is None:
            return
        upload = Upload(key=incoming_key(version.manifest, WEIGHTS_FILE), id=version.upload_id)
        try:
            parts = await self._storage.multipart.list_parts(upload)
        except ObjectMissing:
            return  # joined before
        if missing := missing_parts(version.manifest, parts):
            shown = ", ".join(str(number) for number in missing[:10])
            raise ArtifactMissing(
                f"{len(missing)} parts of {WEIGHTS_FILE} have not arrived: {shown}", field=WEIGHTS_FILE
            )
        await self._storage.multipart.complete(upload, parts)


class _Look:
    """Everything that looks at a version's bytes as they pass."""

    def __init__(self, version: Unfinished, *, limits: Limits, scan: bool) -> None:
        weights = next(file for file in version.manifest.files if file.path == WEIGHTS_FILE)
        self._version = version
        self._limits = limits
        self._inspector = WeightsInspector(
            size_bytes=weights.size_bytes, shape=version.manifest.lora, base=version.base
        )
        self._scan = Scan() if scan else None
        looks = [self._inspector.update, *([self._scan.update] if self._scan else [])]
        self._reader = VersionReader(version.manifest.files, looks={WEIGHTS_FILE: looks})

    def update(self, data: bytes | memoryview) -> None:
        self._reader.update(data)

    def finish(self, data: bytes = b"") -> ValidationReport:
        """Return what was found, once every byte has come and is the declared one."""
        self._reader.update(data)
        self._reader.finish()
        findings = self._inspector.finish()
        configured = check_config(self._version.config, declared=self._version.manifest, limits=self._limits)
        outcome, warnings = (None, []) if findings else self._scanned()
        checks = [*CHECKS, "base", *(["scan"] if outcome else [])]
        return ValidationReport.collect([*configured.findings, *findings, *warnings], checks=checks, scan=outcome)

    def _scanned(self) -> tuple[dict[str, Any] | None, list[Finding]]:
        return self._scan.finish(self._version.config) if self._scan else (None, [])

    def close(self) -> None:
        if self._scan is not None:
            self._scan.close()
