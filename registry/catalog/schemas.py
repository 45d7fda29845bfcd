"""What travels between the registry and its readers, besides manifests."""

from __future__ import annotations

from datetime import datetime

from kit.names import Name
from registry.manifest import Frozen, Manifest, Owner, VersionId


class Resolution(Frozen):
    """A ready version, and where its files can be read for some minutes."""

    manifest: Manifest
    downloads: dict[str, str]


class Alias(Frozen):
    """What an alias names now."""

    alias: Name
    version_id: VersionId


class AdapterSummary(Frozen):
    """One adapter of a tenant; `aliases` maps names to version ids."""

    owner: Owner
    adapter: Name
    created_at: datetime
    aliases: dict[str, str]


class AdapterPage(Frozen):
    """Adapters in the order they were created; `next_cursor` is None on the last page."""

    adapters: tuple[AdapterSummary, ...]
    next_cursor: str | None


class VersionSummary(Frozen):
    """One version, whatever its state; `reason` says why it was rejected."""

    version_id: VersionId
    version: int
    state: str
    content_digest: str
    size_bytes: int
    created_at: datetime
    ready_at: datetime | None
    reason: str | None
