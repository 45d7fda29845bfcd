"""Moving adapters between a disk and signed URLs; no credentials, no trust in what arrives."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, closing
from io import BytesIO, FileIO
from pathlib import Path
from typing import IO

import httpx

from kit.canonical import sha256_file
from kit.errors import SealBroken
from kit.sealing import Fill, Opener, seal_stream
from registry.artifact.draft import read_config
from registry.errors import AdapterInvalid, ArtifactMissing, DigestMismatch, RegistryError, RegistryUnavailable
from registry.manifest import CONFIG_FILE, WEIGHTS_FILE, Manifest, ManifestFile
from registry.publishing.reading import Look, VersionReader
from registry.publishing.schemas import Grant

_CHUNK_BYTES = 1 << 20


def read_plain(directory: Path, file: ManifestFile) -> bytes:
    """Return a file of an adapter directory as it is declared: the configuration in its canonical form.

    Raises:
        DigestMismatch: when it has changed since it was digested.
    """
    data = read_config(directory) if file.path == CONFIG_FILE else (directory / file.path).read_bytes()
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise DigestMismatch(f"{file.path} has changed since it was digested", field=file.path)
    return data


def seal_directory(directory: Path, manifest: Manifest, *, key: bytes) -> Iterator[memoryview]:
    """Yield a version's sealed object, each piece until the next one is asked for.

    It holds the files one after another, in the manifest's order; its last piece comes only after all have been
    compared with what was declared.

    Raises:
        AdapterInvalid: when the directory is no adapter's, or cannot be read.
        DigestMismatch: when a file has changed since it was digested.
    """
    with ExitStack() as stack:
        fill = _fill_from_files(directory, manifest, stack)
        yield from seal_stream(fill, key, context=manifest.version_id.encode())


def _fill_from_files(directory: Path, manifest: Manifest, stack: ExitStack) -> Fill:
    """Return what fills buffers with a version's files, and compares their digests."""
    reader = VersionReader(manifest.files, looks={})
    contents = [stack.enter_context(closing(_open(directory, file))) for file in manifest.files]

    def fill(view: memoryview) -> int:
        filled = 0
        while contents and filled < len(view):
            count = contents[0].readinto(view[filled:]) or 0
            filled += count
            if not count:
                contents.pop(0)
        reader.update(view[:filled])
        if filled < len(view):
            reader.finish()
        return filled

    def translated(view: memoryview) -> int:
        try:
            return fill(view)
        except DigestMismatch as exc:
            raise DigestMismatch(f"{exc.field} has changed since it was digested", field=exc.field) from exc
        except OSError as exc:
            raise AdapterInvalid(f"{directory} cannot be read: {exc.strerror}", field=WEIGHTS_FILE) from exc

    return translated


def _open(directory: Path, file: ManifestFile) -> BytesIO | FileIO:
    if file.path == CONFIG_FILE:
        return BytesIO(read_config(directory))
    try:
        return FileIO(directory / file.path)
    except OSError as exc:
        raise AdapterInvalid(f"{file.path} cannot be read: {exc.strerror}", field=file.path) from exc


def read_part(path: Path, number: int, *, part_bytes: int) -> bytes:
    """Return one part of a file, counted from 1."""
    with path.open("rb") as file:
        file.seek((number - 1) * part_bytes)
        return file.read(part_bytes)


async def install(http: httpx.AsyncClient, grant: Grant, directory: Path) -> None:
    """Download a version so that `directory` either holds all of it, verified, or does not exist.

    Raises:
        DigestMismatch: when the directory holds something else, or what arrives is not the version.
        ArtifactMissing: when the object is gone or the URL has expired.
        RegistryUnavailable: when the object store does not answer.
    """
    manifest = grant.manifest
    if await asyncio.to_thread(_is_taken, directory):
        return await asyncio.to_thread(verify_directory, directory, manifest)
    await asyncio.to_thread(directory.parent.mkdir, parents=True, exist_ok=True)
    staging = Path(
        await asyncio.to_thread(tempfile.mkdtemp, prefix=f".{directory.name}.partial-", dir=directory.parent)
    )
    try:
        with ExitStack() as stack:
            files = {file.path: stack.enter_context((staging / file.path).open("wb")) for file in manifest.files}
            await read_through_seal(http, grant, looks={path: [file.write] for path, file in files.items()})
            await asyncio.to_thread(_sync_files, list(files.values()))
        await asyncio.to_thread(_show, staging, directory, manifest)
    finally:
        await asyncio.to_thread(shutil.rmtree, staging, ignore_errors=True)


async def read_through_seal(http: httpx.AsyncClient, grant: Grant, *, looks: dict[str, list[Look]]) -> None:
    """Read a version's sealed object to its end: open it, compare every digest, show the files' bytes on the way.

    Raises:
        DigestMismatch: when it cannot be opened, or is not what the manifest declares.
        ArtifactMissing: when the store has it no more or the URL has expired.
        RegistryUnavailable: when the object store does not answer.
    """
    opener = Opener(grant.content_key, context=grant.manifest.version_id.encode())
    reader = VersionReader(grant.manifest.files, looks=looks)
    try:
        async for chunk in _body(http, grant.url):
            await asyncio.to_thread(lambda data: reader.update(opener.update(data)), chunk)
        await asyncio.to_thread(lambda: reader.update(opener.finish()))
    except SealBroken as exc:
        message = f"what the object store sent is not this version: {exc.message}"
        raise DigestMismatch(message, field=WEIGHTS_FILE) from exc
    reader.finish()


def verify_directory(directory: Path, manifest: Manifest) -> None:
    """Refuse a directory that does not hold exactly this version's bytes.

    Raises:
        DigestMismatch: naming the file.
    """
    declared = {file.path: file for file in manifest.files}
    found = {path.name for path in directory.iterdir()} if directory.is_dir() else set()
    if strange := sorted(found ^ set(declared)):
        raise DigestMismatch(f"{directory} is not this version: {strange[0]} is missing or extra", field=strange[0])
    for file in manifest.files:
        path = directory / file.path
        if path.stat().st_size != file.size_bytes or sha256_file(path) != file.sha256:
            raise DigestMismatch(f"{path} is not this version's", field=file.path)


async def _body(http: httpx.AsyncClient, url: str) -> AsyncIterator[bytes]:
    """Yield the raw body: decompressing would let few bytes become many."""
    try:
        async with http.stream("GET", url, headers={"accept-encoding": "identity"}) as answer:
            _raise_for_store(answer)
            async for chunk in answer.aiter_raw(_CHUNK_BYTES):
                yield chunk
    except httpx.TransportError as exc:
        raise RegistryUnavailable(f"the object store did not send the adapter: {type(exc).__name__}") from exc


def _raise_for_store(answer: httpx.Response) -> None:
    status = answer.status_code
    if 200 <= status < 300:
        return
    if status >= 500 or status == 429:
        raise RegistryUnavailable(f"the object store answered {status}")
    if status in {403, 404}:
        raise ArtifactMissing(f"the object store answered {status}; ask for the version again", field=WEIGHTS_FILE)
    raise RegistryError(f"the object store answered {status}; ask for the version again", field=WEIGHTS_FILE)


def _is_taken(directory: Path) -> bool:
    return directory.exists() and not (directory.is_dir() and not any(directory.iterdir()))


def _show(staging: Path, directory: Path, manifest: Manifest) -> None:
    """Make the whole directory visible at once, and make that survive a power cut."""
    _sync_directory(staging)
    try:
        staging.rename(directory)
    except OSError:
        if not directory.is_dir():
            raise
        verify_directory(directory, manifest)  # another process was faster
    _sync_directory(directory.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_files(files: list[IO[bytes]]) -> None:
    for file in files:
        file.flush()
        os.fsync(file.fileno())
