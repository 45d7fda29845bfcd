"""Other users' live adapters of the same base, which an evaluation compares a new one with."""

from __future__ import annotations

import logging
from pathlib import Path

from kit.canonical import sha256_json
from registry.client import RegistryClient
from registry.errors import ArtifactError, BaseModelNotFound, NotServable, VersionNotFound
from registry.manifest import LIVE, BaseIdentity, Owner

_MAX_LISTED = 200
_log = logging.getLogger(__name__)


async def fetch_rivals(
    registry: RegistryClient, *, owner: Owner, adapter: str, base: BaseIdentity, limit: int, directory: Path
) -> dict[str, Path]:
    """Return the directories of up to `limit` live adapters of others in the tenant, by version id.

    They are chosen by a hash of both users, so that a repeated evaluation meets the same ones, and downloaded into
    `directory` where they are missing. Fewer are returned when fewer are live, and whole, for this very base.

    Raises:
        RegistryError: the registry cannot be asked.
    """
    if limit <= 0:
        return {}
    try:
        page = await registry.list_adapters(owner.tenant, base=base.id, alias=LIVE, suspended=False, limit=_MAX_LISTED)
    except BaseModelNotFound:
        return {}  # nobody can have an adapter for a base that nothing was published for
    others = [
        each
        for each in page.adapters
        if each.owner.user not in (None, owner.user) and each.adapter == adapter and LIVE in each.aliases
    ]
    others.sort(key=lambda each: sha256_json([owner.user, each.owner.user]))
    rivals: dict[str, Path] = {}
    for each in others:
        if len(rivals) == limit:
            break
        version_id = each.aliases[LIVE]
        target = directory / version_id
        if target.exists() or await _fetch(registry, version_id, base=base, target=target):
            rivals[version_id] = target
    return rivals


async def _fetch(registry: RegistryClient, version_id: str, *, base: BaseIdentity, target: Path) -> bool:
    """Download a rival; False for one of other weights, and one that was erased or damaged: not this user's fault."""
    try:
        resolution = await registry.get_version(version_id)
        if resolution.manifest.base.weights_sha256 != base.weights_sha256:
            return False
        await registry.download(resolution, target)
    except (VersionNotFound, NotServable, ArtifactError) as exc:
        _log.warning("a rival cannot be compared with: %s", type(exc).__name__)
        return False
    return True
