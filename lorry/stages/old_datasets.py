"""Old datasets of one user on this machine: the last few stay, and those that a version was trained on."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from filelock import FileLock, Timeout

from kit.errors import LorryError
from lorry.context import Context
from registry.manifest import AdapterRef, Owner

_DESCRIPTION = "dataset.json"
_REMOVING = ".removing-"


def mark_used(directory: Path) -> None:
    """Count a dataset among the last ones, also where it was built long ago."""
    now = time.time()
    os.utime(directory, (now, now))


async def remove_old_datasets(context: Context, folder: Path, *, user: str, current: str) -> list[str]:
    """Remove the user's datasets in `folder` that nothing needs any more; return their names.

    The last ones stay, as many as `LorrySettings.datasets_kept` says, the current one among them, and every one whose
    digest stands in the lineage of a version that is not erased. Where the registry cannot say, or a training of the
    user runs here, all stay until the next time.
    """
    kept = context.settings.datasets_kept
    found = await asyncio.to_thread(_datasets, folder)
    old = {path: used for path, used in found[kept:] if path.name != current}
    if not old or await asyncio.to_thread(_is_training, context, user):
        return []
    try:
        needed = await _trained_on(context, user)
    except LorryError:  # not found out is not unneeded
        return []
    return await asyncio.to_thread(_remove, {path: used for path, used in old.items() if _digest(path) not in needed})


def _datasets(folder: Path) -> list[tuple[Path, int]]:
    """Return the user's datasets and when they were used, the last first; what goes meanwhile is left out."""
    times = []
    for path in folder.iterdir():
        try:
            if not path.name.startswith(".") and (path / _DESCRIPTION).is_file():
                times.append((path, path.stat().st_mtime_ns))
        except FileNotFoundError:
            continue
    return sorted(times, key=lambda each: each[1], reverse=True)


def _digest(directory: Path) -> str | None:
    try:
        return str(json.loads((directory / _DESCRIPTION).read_bytes())["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_training(context: Context, user: str) -> bool:
    """Say whether some command trains the user now: each run is made under a lock of its own."""
    for path in context.home.user_folder("runs", tenant=context.settings.tenant, user=user).glob(".*.lock"):
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
    return False


async def _trained_on(context: Context, user: str) -> set[str]:
    """Return the digests of datasets that versions of the user were trained on; of erased ones nothing is known."""
    owner, cursor, found = Owner.named(tenant=context.settings.tenant, user=user), None, set[str]()
    while True:
        page = await context.registry.list_adapters(owner.tenant, user, cursor)
        for adapter in page.adapters:
            for version in await context.registry.list_versions(owner, adapter.adapter):
                if version.erased_at is not None:
                    continue
                ref = AdapterRef(owner=owner, adapter=adapter.adapter, selector=str(version.version))
                manifest = (await context.registry.show_version(ref)).manifest
                if manifest is not None and manifest.lineage.dataset_digest is not None:
                    found.add(manifest.lineage.dataset_digest)
        if (cursor := page.next_cursor) is None:
            return found


def _remove(directories: Mapping[Path, int]) -> list[str]:
    """Take each out of sight first, so that nobody reads half of one; what was used again meanwhile stays."""
    removed = []
    for path, used in directories.items():
        gone = path.with_name(f"{_REMOVING}{path.name}")
        try:
            if path.stat().st_mtime_ns != used:
                continue
            path.rename(gone)
        except FileNotFoundError:
            continue  # another command was quicker
        shutil.rmtree(gone, ignore_errors=True)
        removed.append(path.name)
    return removed
