"""What travels between the registry and its clients, besides drafts and manifests."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from kit.names import Name
from registry.manifest import Manifest, Owner, VersionId


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileUpload(_Frozen):
    """A URL that takes one PUT of exactly the declared bytes, and the headers it must carry."""

    url: str
    headers: dict[str, str]


class Publication(_Frozen):
    """Where a publish stands; `uploads` maps file names to URLs and is empty once the version is ready."""

    version_id: VersionId
    state: str
    manifest: Manifest
    uploads: dict[str, FileUpload]


class Resolution(_Frozen):
    """A ready version, and where its files can be read for some minutes."""

    manifest: Manifest
    downloads: dict[str, str]


class AliasMove(_Frozen):
    """A compare-and-swap: `expected_version_id` None means that the alias must not exist yet."""

    version_id: VersionId
    expected_version_id: VersionId | None = None
    why: str = Field(default="", max_length=1000, pattern=r"^[^\x00]*$")


class Alias(_Frozen):
    """What an alias names now."""

    alias: Name
    version_id: VersionId


class AdapterSummary(_Frozen):
    """One adapter of a tenant; `aliases` maps names to version ids."""

    owner: Owner
    adapter: Name
    created_at: datetime
    aliases: dict[str, str]


class AdapterPage(_Frozen):
    """Adapters in the order they were created; `next_cursor` is None on the last page."""

    adapters: tuple[AdapterSummary, ...]
    next_cursor: str | None


class VersionSummary(_Frozen):
    """One version, whatever its state; `reason` says why it was rejected."""

    version_id: VersionId
    version: int
    state: str
    content_digest: str
    size_bytes: int
    created_at: datetime
    ready_at: datetime | None
    reason: str | None
