"""The disk cache of verified adapters: one directory a version, whole or absent.

``<cache>/<version_id>/`` holds exactly the manifest's files. It appears by rename after every byte was
verified and synced, so its existence is the proof that it is whole; what a killed process left is under
``<cache>/.staging/`` and is removed at the next start. Processes that share a cache respect each other's
locks. Two versions with equal bytes are two directories, so that erasing one erases all of it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

from kit.canonical import sha256_file
from registry.manifest import Manifest
from serving.engine.file_lock import lock_if_free, locked
from serving.engine.metrics import EngineMetrics
from serving.engine.single_flight import SingleFlight
from serving.errors import AdapterDamaged, CacheFull

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
_SPARE_BYTES = 16 << 20
_VERSION_ID = re.compile(r"v[0-9a-f]{32}", re.ASCII)

Download = Callable[[Path], Awaitable[None]]
"""Puts a version's files into a directory, which does not exist yet; may use its parent for work in progress."""


class Installer:
    """Puts versions on this host's disk and vouches for what is there."""

    def __init__(self, directory: Path, *, metrics: EngineMetrics, lock_seconds: float) -> None:
        self._directory = directory
        self._staging = directory / ".staging"
        self._metrics = metrics
        self._lock_seconds = lock_seconds
        self._verified: set[str] = set()
        self._flights: SingleFlight[str, Path] = SingleFlight()

    def open(self) -> None:
        """Create the cache (readable by this user only) and remove what dead processes left half-written."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._staging.mkdir(mode=0o700, exist_ok=True)
        for leftover in sorted(self._staging.iterdir()):
            version_id = leftover.name.removesuffix(".lock")
            with lock_if_free(self._lock_path(version_id)) as free:
                if free:
                    shutil.rmtree(self._staging / version_id, ignore_errors=True)

    async def install(self, manifest: Manifest, download: Download) -> Path:
        """Return the directory of the manifest's verified files, downloading them when they are not here.

        Everybody who asks for a version at the same time shares one installation, which goes on when they go away.
        Files that an earlier process installed are digested again at this process's first use of them,
        and downloaded anew when they have changed.

        Raises:
            AdapterDamaged: when the downloaded bytes are not the manifest's.
            CacheFull: when the disk has no room.
            CacheBusy: when another process holds the version's lock for too long.
        """
        return await self._flights.run(manifest.version_id, lambda: self._install(manifest, download))

    def installed(self) -> list[str]:
        """Return the versions on disk, whoever installed them."""
        return [name for name in os.listdir(self._directory) if _VERSION_ID.fullmatch(name)]

    async def remove(self, version_id: str) -> None:
        """Delete a version's files; none is no error. The caller sees to it that nobody uses them.

        Raises:
            CacheBusy: when another process holds the version's lock for too long.
        """
        async with locked(self._lock_path(version_id), timeout_seconds=self._lock_seconds):
            self._verified.discard(version_id)
            await asyncio.to_thread(self._delete, version_id)

    def distrust(self, version_id: str) -> None:
        """Digest the version's files again before they are next used."""
        self._verified.discard(version_id)

    async def _install(self, manifest: Manifest, download: Download) -> Path:
        try:
            async with locked(self._lock_path(manifest.version_id), timeout_seconds=self._lock_seconds):
                return await self._install_locked(manifest, download)
        except OSError as exc:
            if exc.errno in _NO_ROOM:
                raise CacheFull from exc
            raise

    async def _install_locked(self, manifest: Manifest, download: Download) -> Path:
        target = self._directory / manifest.version_id
        if await asyncio.to_thread(self._is_intact, target, manifest):
            return target
        self._verified.discard(manifest.version_id)
        workspace = self._staging / manifest.version_id
        staged = workspace / "files"
        try:
            await asyncio.to_thread(self._prepare, workspace, manifest)
            with self._metrics.stage("download"):
                await download(staged)
            with self._metrics.stage("verify"):
                await asyncio.to_thread(verify_directory, staged, manifest)
            with self._metrics.stage("install"):
                await asyncio.to_thread(_publish, staged, target)
        finally:
            await asyncio.to_thread(shutil.rmtree, workspace, ignore_errors=True)
        self._verified.add(manifest.version_id)
        return target

    def _is_intact(self, target: Path, manifest: Manifest) -> bool:
        """Say whether `target` is installed: sizes every time, digests once a process."""
        if not target.is_dir():
            return False
        try:
            if manifest.version_id in self._verified:
                _check_sizes(target, manifest)
            else:
                with self._metrics.stage("verify"):
                    verify_directory(target, manifest)
        except AdapterDamaged:
            return False
        self._verified.add(manifest.version_id)
        return True

    def _delete(self, version_id: str) -> None:
        """Make the directory vanish at once, then free its bytes; a process killed between leaves it to `open`."""
        grave = self._staging / version_id
        shutil.rmtree(grave, ignore_errors=True)
        try:
            (self._directory / version_id).rename(grave)
        except FileNotFoundError:
            return
        _sync(self._directory)
        shutil.rmtree(grave)

    def _prepare(self, workspace: Path, manifest: Manifest) -> None:
        needed = sum(file.size_bytes for file in manifest.files) + _SPARE_BYTES
        free = shutil.disk_usage(self._staging).free
        if free < needed:
            raise CacheFull(f"The engine's disk has {free} bytes free; this adapter needs {needed}.")
        shutil.rmtree(workspace, ignore_errors=True)
        workspace.mkdir(mode=0o700)

    def _lock_path(self, version_id: str) -> Path:
        return self._staging / f"{version_id}.lock"


def verify_directory(directory: Path, manifest: Manifest) -> None:
    """Read every byte of `directory` and compare it with the manifest.

    Raises:
        AdapterDamaged: naming a file that is missing, too many, of another size or digest.
    """
    _check_sizes(directory, manifest)
    for file in manifest.files:
        if sha256_file(directory / file.path) != file.sha256:
            raise AdapterDamaged(f"{file.path} does not have the digest that its manifest states", field=file.path)


def _check_sizes(directory: Path, manifest: Manifest) -> None:
    found = {path.name: path for path in directory.iterdir()}
    for name in sorted(found.keys() ^ {file.path for file in manifest.files}):
        raise AdapterDamaged(f"{name} is {'not in the manifest' if name in found else 'missing'}", field=name)
    for file in manifest.files:
        path = found[file.path]
        size_bytes = path.lstat().st_size
        if not path.is_file() or path.is_symlink() or size_bytes != file.size_bytes:
            raise AdapterDamaged(f"{file.path} has {size_bytes} bytes, not {file.size_bytes}", field=file.path)


def _publish(staged: Path, target: Path) -> None:
    staged.chmod(0o700)
    for path in staged.iterdir():
        _sync(path)
    _sync(staged)
    shutil.rmtree(target, ignore_errors=True)  # only ever there when it was found damaged
    staged.rename(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
