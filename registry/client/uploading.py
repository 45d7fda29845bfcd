"""Sending an adapter: sealed and at once where it is small; in parts, from where a try before ended, where not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from kit.canonical import sha256_bytes, sha256_file
from kit.sealing import sealed_size
from kit.together import all_of
from registry.client.object_writer import Pieces
from registry.client.transfer import read_part, read_plain, seal_directory
from registry.client.transport import Transport, patiently
from registry.errors import DigestMismatch
from registry.manifest import WEIGHTS_FILE, Manifest
from registry.publishing.schemas import (
    OpenUpload,
    PartDigest,
    PartsUpload,
    PartsWanted,
    Publication,
    SealedUpload,
    SignedPart,
    SignedParts,
)

Progress = Callable[[int, int], None]
_PARTS_AT_ONCE = 4
_PIECE_BYTES = 1 << 20


async def send(
    transport: Transport, publication: Publication, directory: Path, *, on_progress: Progress | None = None
) -> None:
    """Send what a publication asks for; nothing, when it is there already.

    Raises:
        AdapterInvalid, DigestMismatch: when the directory is not what was declared.
        RegistryUnavailable: when the object store does not answer.
    """
    manifest = publication.manifest
    match publication.upload:
        case SealedUpload() as upload:
            size_bytes = sealed_size(sum(file.size_bytes for file in manifest.files))
            sealed = partial(seal_directory, directory, manifest, key=upload.content_key)
            await _send_at_once(transport, upload, sealed, size_bytes, on_progress)
        case OpenUpload() as upload:
            weights = next(file for file in manifest.files if file.path == WEIGHTS_FILE)
            data = await asyncio.to_thread(read_plain, directory, weights)
            await _send_at_once(transport, upload, partial(_cut, data), weights.size_bytes, on_progress)
        case PartsUpload() as parts:
            await _send_parts(transport, manifest, parts, directory / WEIGHTS_FILE, on_progress)


async def _send_at_once(
    transport: Transport,
    upload: SealedUpload | OpenUpload,
    pieces: Pieces,
    size_bytes: int,
    on_progress: Progress | None,
) -> None:
    def sent(sent_bytes: int) -> None:
        if on_progress is not None:
            on_progress(sent_bytes, size_bytes)

    told = sent if on_progress is not None else None
    put = partial(transport.uploads.put, upload.url, pieces, size_bytes=size_bytes, headers=upload.headers)
    await patiently(lambda: put(on_sent=told))


def _cut(data: bytes) -> Iterator[memoryview]:
    view = memoryview(data)
    return (view[at : at + _PIECE_BYTES] for at in range(0, len(view), _PIECE_BYTES))


async def _send_parts(
    transport: Transport, manifest: Manifest, upload: PartsUpload, path: Path, on_progress: Progress | None
) -> None:
    weights = next(file for file in manifest.files if file.path == WEIGHTS_FILE)
    if await asyncio.to_thread(sha256_file, path) != weights.sha256:
        raise DigestMismatch(f"{path.name} has changed since it was digested", field=path.name)
    count = -(-weights.size_bytes // upload.part_bytes)
    arrived = set(upload.arrived)
    missing = [number for number in range(1, count + 1) if number not in arrived]
    for start in range(0, len(missing), _PARTS_AT_ONCE):
        await _send_few(transport, manifest.version_id, path, missing[start : start + _PARTS_AT_ONCE], upload)
        if on_progress is not None:
            left = (len(missing) - start - _PARTS_AT_ONCE) * upload.part_bytes
            on_progress(weights.size_bytes - max(0, left), weights.size_bytes)


async def _send_few(transport: Transport, version_id: str, path: Path, numbers: list[int], upload: PartsUpload) -> None:
    parts = {
        number: await asyncio.to_thread(read_part, path, number, part_bytes=upload.part_bytes) for number in numbers
    }
    digests = tuple(PartDigest(number=number, sha256=sha256_bytes(data)) for number, data in parts.items())
    signed = await transport.call(
        SignedParts, "POST", f"/v1/versions/{version_id}/parts", body=PartsWanted(parts=digests)
    )

    async def send_one(part: SignedPart) -> None:
        data = parts[part.number]
        put = partial(transport.uploads.put, part.url, lambda: [data], size_bytes=len(data), headers=part.headers)
        await patiently(put)

    await all_of(send_one(part) for part in signed.parts)
