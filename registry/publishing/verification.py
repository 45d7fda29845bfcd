"""Reading stored files back: is what the store holds what the manifest says?"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from kit.errors import ObjectConflict
from kit.storage import ObjectStorage
from registry.artifact.safetensors_header import LENGTH_BYTES, MAX_HEADER_BYTES
from registry.errors import DigestMismatch
from registry.manifest import ManifestFile

_START_BYTES = LENGTH_BYTES + MAX_HEADER_BYTES


@dataclass(frozen=True, kw_only=True)
class VerifiedFile:
    """A stored file whose every byte was read and fits; `start` holds at most its first MiB and eight bytes."""

    path: str
    key: str
    etag: str
    size_bytes: int
    start: bytes


async def verify_object(storage: ObjectStorage, key: str, *, declared: ManifestFile) -> VerifiedFile:
    """Read an object in bounded memory and compare it with its declaration.

    Raises:
        ObjectMissing: when there is none.
        DigestMismatch: when size or SHA-256 differ, or when it changed while being read.
    """
    found = await storage.head(key)
    if found.size_bytes != declared.size_bytes:
        raise DigestMismatch(
            f"{declared.path} has {found.size_bytes} bytes, {declared.size_bytes} were declared", field=declared.path
        )
    digest = hashlib.sha256()
    start = bytearray()
    try:
        async for chunk in storage.stream(key, etag=found.etag):
            digest.update(chunk)
            start += chunk[: _START_BYTES - len(start)]
    except ObjectConflict as exc:
        raise DigestMismatch(f"{declared.path} changed while it was being read", field=declared.path) from exc
    if digest.hexdigest() != declared.sha256:
        raise DigestMismatch(f"{declared.path} does not have the declared SHA-256", field=declared.path)
    return VerifiedFile(path=declared.path, key=key, etag=found.etag, size_bytes=found.size_bytes, start=bytes(start))
