"""Moving files between a disk and signed URLs; no credentials, no trust in what arrives."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx

from kit.canonical import sha256_file
from registry.artifact.draft import read_config
from registry.catalog.schemas import Resolution
from registry.errors import ArtifactMissing, DigestMismatch, RegistryError, RegistryUnavailable
from registry.manifest import CONFIG_FILE, Manifest, ManifestFile
from registry.publishing.schemas import FileUpload

_CHUNK_BYTES = 1 << 20


def readable(directory: Path, path: str) -> bytes | Path:
    """Return what stands for a file of an adapter directory: the configuration's canonical bytes, or the file."""
    return read_config(directory) if path == CONFIG_FILE else directory / path


def check_content(content: bytes | Path, *, declared: ManifestFile) -> None:
    """Refuse bytes that are not the declared ones, before they are sent.

    Raises:
        DigestMismatch: naming the file.
    """
    found = sha256_file(content) if isinstance(content, Path) else hashlib.sha256(content).hexdigest()
    if found != declared.sha256:
        raise DigestMismatch(f"{declared.path} has changed since it was digested", field=declared.path)


async def put_file(
    http: httpx.AsyncClient,
    upload: FileUpload,
    content: bytes | Path,
    *,
    declared: ManifestFile,
    on_sent: Callable[[int], None],
) -> None:
    """Send one file to its signed URL; `on_sent` is told the bytes sent so far.

    Raises:
        RegistryUnavailable: when the object store does not answer or is overloaded.
        DigestMismatch: when the store says that other bytes arrived.
        RegistryError: when the store refuses, for instance because the URL has expired.
    """
    headers = {**upload.headers, "content-length": str(declared.size_bytes)}
    try:
        answer = await http.put(upload.url, headers=headers, content=_chunks(content, on_sent))
    except httpx.TransportError as exc:
        raise RegistryUnavailable(f"the object store did not take {declared.path}: {type(exc).__name__}") from exc
    _raise_for_store(answer, path=declared.path)


async def install(http: httpx.AsyncClient, resolution: Resolution, directory: Path) -> None:
    """Download a version so that `directory` either holds all of it, verified, or does not exist.

    Raises:
        DigestMismatch: when the directory holds something else, or other bytes than declared arrive.
        RegistryUnavailable: when the object store does not answer.
    """
    manifest = resolution.manifest
    if await asyncio.to_thread(_is_taken, directory):
        return await asyncio.to_thread(verify_directory, directory, manifest)
    await asyncio.to_thread(directory.parent.mkdir, parents=True, exist_ok=True)
    staging = Path(
        await asyncio.to_thread(tempfile.mkdtemp, prefix=f".{directory.name}.partial-", dir=directory.parent)
    )
    try:
        for file in manifest.files:
            await fetch_file(http, resolution.downloads[file.path], staging / file.path, declared=file)
        await asyncio.to_thread(_show, staging, directory, manifest)
    finally:
        await asyncio.to_thread(shutil.rmtree, staging, ignore_errors=True)


async def fetch_file(http: httpx.AsyncClient, url: str, target: Path, *, declared: ManifestFile) -> None:
    """Read one file from its signed URL to disk, comparing as it comes; stops at the declared size.

    Raises:
        ArtifactMissing: when the store has it no more or the URL has expired.
        DigestMismatch: when the bytes are not the declared ones.
        RegistryUnavailable: when the object store does not answer.
    """
    digest, size_bytes = hashlib.sha256(), 0
    file = await asyncio.to_thread(target.open, "wb")
    try:
        async for chunk in _body(http, url, path=declared.path):
            size_bytes += len(chunk)
            if size_bytes > declared.size_bytes:
                raise DigestMismatch(f"{declared.path} is longer than declared", field=declared.path)
            digest.update(chunk)
            await asyncio.to_thread(file.write, chunk)
        await asyncio.to_thread(_sync, file.fileno(), file.flush)
    finally:
        await asyncio.to_thread(file.close)
    if size_bytes != declared.size_bytes or digest.hexdigest() != declared.sha256:
        raise DigestMismatch(f"{declared.path} is not what the manifest declares", field=declared.path)


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


async def _body(http: httpx.AsyncClient, url: str, *, path: str) -> AsyncIterator[bytes]:
    """Yield the raw body: decompressing would let few bytes become many."""
    try:
        async with http.stream("GET", url, headers={"accept-encoding": "identity"}) as answer:
            _raise_for_store(answer, path=path)
            async for chunk in answer.aiter_raw(_CHUNK_BYTES):
                yield chunk
    except httpx.TransportError as exc:
        raise RegistryUnavailable(f"the object store did not send {path}: {type(exc).__name__}") from exc


async def _chunks(content: bytes | Path, on_sent: Callable[[int], None]) -> AsyncIterator[bytes]:
    if isinstance(content, bytes):
        yield content
        on_sent(len(content))
        return
    sent_bytes = 0
    file = await asyncio.to_thread(content.open, "rb")
    try:
        while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
            yield chunk
            sent_bytes += len(chunk)
            on_sent(sent_bytes)
    finally:
        await asyncio.to_thread(file.close)


def _raise_for_store(answer: httpx.Response, *, path: str) -> None:
    status = answer.status_code
    if 200 <= status < 300:
        return
    if status >= 500 or status == 429:
        raise RegistryUnavailable(f"the object store answered {status} for {path}")
    if answer.request.method == "GET" and status in {403, 404}:
        raise ArtifactMissing(f"the object store answered {status} for {path}; resolve again", field=path)
    if status == 400:
        raise DigestMismatch(f"the object store refused {path}: other bytes arrived than declared", field=path)
    raise RegistryError(f"the object store answered {status} for {path}; begin again", field=path)


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


def _sync(descriptor: int, flush: Callable[[], None]) -> None:
    flush()
    os.fsync(descriptor)
