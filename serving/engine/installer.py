"""The disk tier: sealed adapters, one directory a version, bounded by bytes.

``<cache>/<version_id>/sealed`` is the registry's sealed object, byte for byte: whoever takes the disk has nothing
without a key, and keys are in memory only (`serving.engine.source`). Nothing on the disk tells whose adapter it is; the
manifest, which does, comes with the key.

What is opened was verified, so the disk need not be trusted: every use opens the seal and compares every digest anyway,
in the pass that reads the bytes. That is why nothing is synced and nothing is read twice: what a power cut tore or a
disk rotted is found when it is next used, deleted, and downloaded anew. A directory appears by rename once its bytes
were verified; what a killed process left under ``<cache>/.staging/`` is removed at the next start.

Processes that share a cache keep its bound together and respect each other's locks: room is made by one of them at a
time, counts what the others have put there, and deletes nothing that is locked. Two versions with equal bytes are two
directories, so that erasing one erases all of it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from io import FileIO
from pathlib import Path
from stat import S_ISREG
from typing import Literal

from registry.manifest import ADAPTER_FILES
from serving.engine.file_lock import lock_if_free, locked
from serving.engine.machine import refusals_of_the_machine
from serving.engine.metrics import EngineMetrics
from serving.engine.pool.observer import Reason
from serving.engine.pool.tier import Entry, Tier
from serving.errors import CacheFull, TierFull

SEALED_FILE = "sealed"

_log = logging.getLogger(__name__)
_SPARE_BYTES = 16 << 20
_UNBOUNDED = 1 << 62
_ROOM_LOCK = ".room.lock"
_VERSION_ID = re.compile(r"v[0-9a-f]{32}", re.ASCII)


class Installer:
    """Keeps sealed versions on this host's disk, the least recently used going first."""

    def __init__(
        self, directory: Path, *, metrics: EngineMetrics, lock_seconds: float, max_bytes: int = _UNBOUNDED
    ) -> None:
        """Describe a cache in `directory`, which other processes may use as well.

        Args:
            directory: where.
            metrics: what is measured.
            lock_seconds: how long to wait for a version that another process is busy with.
            max_bytes: what all sealed files together may take.
        """
        self._directory = directory
        self._staging = directory / ".staging"
        self._metrics = metrics
        self._lock_seconds = lock_seconds
        self._tier = Tier("disk", max_bytes=max_bytes)
        self._room = asyncio.Lock()
        self._arriving: set[str] = set()
        self._forgetful: list[Callable[[str], None]] = []
        self._watching: list[Callable[[str], None]] = []

    @property
    def directory(self) -> Path:
        """Where the cache is."""
        return self._directory

    @property
    def max_bytes(self) -> int:
        """What all sealed files together may take."""
        return self._tier.max_bytes

    def open(self) -> None:
        """Create the cache (readable by this user only), adopt what is there, oldest use first, and remove the rest.

        The rest is what dead processes left half-written, what an earlier release kept in plain, and what is beyond
        the bound.
        """
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._staging.mkdir(mode=0o700, exist_ok=True)
        for leftover in sorted(self._staging.iterdir()):
            self._clear_staging(leftover.name.removesuffix(".lock"))
        for version_id in self.installed():
            if any((self._directory / version_id / name).exists() for name in ADAPTER_FILES):
                self._delete_if_free(version_id)
        for entry in self._tier.restore(self._found_on_disk(self.installed())):
            if self._delete_if_free(entry.version_id):
                self._metrics.evicted("disk", "room")

    def installed(self) -> list[str]:
        """Return the versions on disk, whoever installed them."""
        return [name for name in os.listdir(self._directory) if _VERSION_ID.fullmatch(name)]

    def usage(self) -> list[Entry]:
        """Return what is on disk or on its way there, the least recently used first, as far as this process knows."""
        return self._tier.entries()

    def has(self, version_id: str) -> bool:
        """Say whether a version's file is here, as far as this process knows, and not just on its way."""
        return version_id in self._tier and version_id not in self._arriving

    def on_removed(self, forget: Callable[[str], None]) -> None:
        """Tell `forget` of every version that `remove` deleted."""
        self._forgetful.append(forget)

    def on_gone(self, forget: Callable[[str], None]) -> None:
        """Tell `forget` of every version that is not here any more, whyever, so that its key goes as well."""
        self._watching.append(forget)

    async def remove(self, version_id: str, *, reason: Reason = "erased") -> int:
        """Delete a version's file; returns its bytes, 0 when there is none.

        Raises:
            CacheBusy: when it is being installed, or another process holds it, for too long.
            CacheFull, MachineRefused: when the disk does not let it go.
        """
        async with locked(self._lock_path(version_id), timeout_seconds=self._lock_seconds):
            with refusals_of_the_machine():
                size_bytes, existed = await asyncio.to_thread(self._delete, version_id)
            self._gone(version_id)
            for forget in self._forgetful:
                forget(version_id)
        if existed:
            self._metrics.evicted("disk", reason)
        return size_bytes

    @asynccontextmanager
    async def shelf(self, version_id: str) -> AsyncIterator[Shelf]:
        """Hold a version's place on the disk: nobody else, in whatever process, puts, takes or deletes it meanwhile.

        Raises:
            CacheBusy: when another process holds it for too long.
        """
        async with locked(self._lock_path(version_id), timeout_seconds=self._lock_seconds):
            self._tier.hold(version_id)
            try:
                yield Shelf(self, version_id)
            finally:
                self._tier.let_go(version_id)

    def _gone(self, version_id: str) -> None:
        """Note that a version's file is not here any more."""
        self._tier.abandon(version_id)
        for forget in self._watching:
            forget(version_id)

    def _find(self, version_id: str, size_bytes: int) -> Path | Literal["lost", "damaged"]:
        """Return the sealed file and mark it as used, or say why there is none; what is no such file is deleted."""
        path = self._directory / version_id / SEALED_FILE
        try:
            status = None if path.parent.is_symlink() else path.lstat()
        except FileNotFoundError:
            if os.path.lexists(path.parent):
                self._delete(version_id)
            return "lost"
        except NotADirectoryError:
            status = None
        if status is None or not S_ISREG(status.st_mode) or status.st_size != size_bytes:
            self._delete(version_id)
            return "damaged"
        os.utime(path)  # the order of use survives a restart
        return path

    async def _make_room(self, version_id: str, size_bytes: int) -> None:
        """Count a version as arriving, deleting as many of the least recently used as that takes.

        Raises:
            CacheFull: when neither the bound nor the disk leaves room, whatever is deleted.
            CacheBusy: when another process makes room for too long.
        """
        async with self._room, locked(self._staging / _ROOM_LOCK, timeout_seconds=self._lock_seconds):
            others_bytes = await self._reconcile()
            lacking_bytes = await asyncio.to_thread(self._lacking, others_bytes)
            busy: set[str] = set()
            try:
                while leaving := self._tier.leaving(
                    version_id, size_bytes, besides_bytes=others_bytes + lacking_bytes, keep=busy
                ):
                    for entry in leaving:
                        if await asyncio.to_thread(self._delete_if_free, entry.version_id):
                            self._gone(entry.version_id)
                            self._metrics.evicted("disk", "room")
                        else:
                            busy.add(entry.version_id)
            except TierFull as exc:
                self._require_free(size_bytes)
                raise CacheFull(exc.message) from exc
            await asyncio.to_thread(self._reserve, version_id, size_bytes)
            self._tier.adopt(Entry(version_id=version_id, size_bytes=size_bytes))
            self._arriving.add(version_id)

    async def _reconcile(self) -> int:
        """Learn what other processes have put here or deleted; return the bytes of what they are just putting."""
        names = set(await asyncio.to_thread(self.installed))
        known = {entry.version_id for entry in self._tier.entries()}
        for version_id in known - names - self._arriving:
            self._gone(version_id)
        if strange := names - known:
            for entry in await asyncio.to_thread(self._found_on_disk, strange):
                self._tier.adopt(entry)
        return await asyncio.to_thread(self._arriving_elsewhere)

    def _found_on_disk(self, names: list[str] | set[str]) -> list[Entry]:
        """Return entries of these versions, the least recently used first."""
        found = []
        for name in names:
            try:
                status = (self._directory / name / SEALED_FILE).lstat()
                found.append((status.st_mtime_ns, Entry(version_id=name, size_bytes=status.st_size)))
            except OSError:
                found.append((0, Entry(version_id=name, size_bytes=0)))
        return [entry for _, entry in sorted(found, key=lambda pair: (pair[0], pair[1].version_id))]

    def _arriving_elsewhere(self) -> int:
        """Return the bytes of what living processes are downloading; remove what dead ones left."""
        total = 0
        for name in os.listdir(self._staging):
            if not _VERSION_ID.fullmatch(name) or name in self._arriving or self._clear_staging(name):
                continue
            try:
                total += (self._staging / name / SEALED_FILE).stat().st_size
            except OSError:
                continue  # it has just arrived, or is being deleted
        return total

    def _clear_staging(self, version_id: str) -> bool:
        """Remove what is being prepared for a version unless a living process does; says whether it did."""
        with lock_if_free(self._lock_path(version_id)) as free:
            if free:
                shutil.rmtree(self._staging / version_id, ignore_errors=True)
        return free

    def _lacking(self, others_bytes: int) -> int:
        """Return how far the disk is from holding what the bound allows, because others have filled it."""
        free_bytes = self._free_bytes()
        possible_bytes = self._tier.size_bytes + others_bytes + free_bytes - _SPARE_BYTES
        return max(0, self.max_bytes - possible_bytes)

    def _free_bytes(self) -> int:
        """Return what the disk will have left once all that is arriving, in whatever process, has been written."""
        unwritten_bytes = 0
        for path in self._staging.glob(f"*/{SEALED_FILE}"):
            try:
                status = path.lstat()
            except OSError:
                continue  # it has just arrived, or is being deleted
            unwritten_bytes += max(0, status.st_size - status.st_blocks * 512)
        return shutil.disk_usage(self._staging).free - unwritten_bytes

    def _require_free(self, size_bytes: int) -> None:
        free_bytes, needed_bytes = self._free_bytes(), size_bytes + _SPARE_BYTES
        if free_bytes < needed_bytes:
            raise CacheFull(
                f"The engine's disk has {max(0, free_bytes)} bytes free; this adapter needs {needed_bytes}."
            )

    def _reserve(self, version_id: str, size_bytes: int) -> None:
        """Take the place in the staging area, where other processes count it."""
        self._require_free(size_bytes)
        workspace = self._staging / version_id
        with refusals_of_the_machine():
            shutil.rmtree(workspace, ignore_errors=True)
            workspace.mkdir(mode=0o700)
            with FileIO(workspace / SEALED_FILE, "x", opener=_private) as file:
                file.truncate(size_bytes)

    def _publish(self, version_id: str) -> None:
        target = self._directory / version_id
        shutil.rmtree(target, ignore_errors=True)  # only ever there when it was found damaged
        (self._staging / version_id).rename(target)

    def _delete_if_free(self, version_id: str) -> bool:
        with lock_if_free(self._lock_path(version_id)) as free:
            if free:
                self._delete(version_id)
        return free

    def _delete(self, version_id: str) -> tuple[int, bool]:
        """Make the directory vanish at once, then free its bytes; a process killed between leaves it to `open`."""
        grave = self._staging / version_id
        shutil.rmtree(grave, ignore_errors=True)
        try:
            (self._directory / version_id).rename(grave)
        except FileNotFoundError:
            return 0, False
        except NotADirectoryError:  # a link or a file in a version's place
            (self._directory / version_id).unlink()
            return 0, True
        try:
            size_bytes = (grave / SEALED_FILE).lstat().st_size
        except OSError:
            size_bytes = 0
        if grave.is_symlink():
            grave.unlink()
        else:
            shutil.rmtree(grave)
        return size_bytes, True

    def _lock_path(self, version_id: str) -> Path:
        return self._staging / f"{version_id}.lock"


class Shelf:
    """One version's place on the disk, while it is held."""

    def __init__(self, installer: Installer, version_id: str) -> None:
        self._installer = installer
        self._version_id = version_id

    async def find(self, size_bytes: int) -> Path | None:
        """Return the sealed file when it is here, and mark it as used; None when there is none of this size."""
        installer, version_id = self._installer, self._version_id
        found = await asyncio.to_thread(installer._find, version_id, size_bytes)
        if isinstance(found, Path):
            if not installer._tier.touch(version_id):
                installer._tier.adopt(Entry(version_id=version_id, size_bytes=size_bytes))
            return found
        if found == "damaged":
            _log.warning("%s was no file of its size on the disk and is downloaded again", version_id)
        if found == "damaged" or version_id in installer._tier:
            installer._metrics.evicted("disk", found)
        installer._gone(version_id)
        return None

    async def discard(self) -> None:
        """Delete the file: it is damaged."""
        _, existed = await asyncio.to_thread(self._installer._delete, self._version_id)
        self._installer._gone(self._version_id)
        if existed:
            self._installer._metrics.evicted("disk", "damaged")

    @asynccontextmanager
    async def arrival(self, size_bytes: int) -> AsyncIterator[Path]:
        """Make room and yield the file to write to; it is kept when the block ends, and gone when that raises.

        Raises:
            CacheFull, MachineRefused: when there is no room, or the disk does not take it.
            CacheBusy: when another process makes room for too long.
        """
        installer, version_id = self._installer, self._version_id
        await installer._make_room(version_id, size_bytes)
        try:
            with refusals_of_the_machine():
                yield installer._staging / version_id / SEALED_FILE
                await asyncio.to_thread(installer._publish, version_id)
        except BaseException:
            installer._gone(version_id)
            shutil.rmtree(installer._staging / version_id, ignore_errors=True)
            raise
        finally:
            installer._arriving.discard(version_id)


def open_for_writing(path: Path) -> FileIO:
    """Open a file that `Shelf.arrival` yielded; what was reserved is overwritten."""
    return FileIO(path, "r+", opener=_private)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
