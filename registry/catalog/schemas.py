"""What travels between the registry and its readers, besides manifests."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kit.names import Name
from registry.manifest import Frozen, Manifest, Owner, VersionId


class Resolution(Frozen):
    """A version that may be served."""

    manifest: Manifest


class Alias(Frozen):
    """What an alias names now."""

    alias: Name
    version_id: VersionId


class LiveVersion(Frozen):
    """The version that `live` names, as far as a listing shows it.

    `own_loss` is its evaluation's ``held_out.own_loss``, when it has one.
    """

    version_id: VersionId
    version: int
    state: str
    base_id: str
    size_bytes: int
    ready_at: datetime | None
    own_loss: float | None


class AdapterSummary(Frozen):
    """One adapter of a tenant.

    `aliases` maps names to version ids; `versions` counts those of every state; `suspended` says whether the adapter,
    or all of its user, serves nowhere.
    """

    owner: Owner
    adapter: Name
    created_at: datetime
    aliases: dict[str, str]
    versions: int
    suspended: bool
    live: LiveVersion | None


class AdapterPage(Frozen):
    """Adapters by name where a filter names them, else as they were created; `next_cursor` is None on the last page."""

    adapters: tuple[AdapterSummary, ...]
    next_cursor: str | None


class AdapterDetail(AdapterSummary):
    """One adapter, with the number of its versions in each state that any is in."""

    states: dict[str, int]


class VersionSummary(Frozen):
    """One version, whatever its state; `reason` says why it was rejected or suspended, `aliases` what names it."""

    version_id: VersionId
    version: int
    state: str
    base_id: str
    content_digest: str
    size_bytes: int
    aliases: tuple[str, ...]
    created_at: datetime
    ready_at: datetime | None
    suspended_at: datetime | None
    retired_at: datetime | None
    removed_at: datetime | None
    erased_at: datetime | None
    reason: str | None
    reason_field: str | None


class VersionPage(Frozen):
    """An adapter's versions, the newest first; `next_cursor` is None on the last page."""

    versions: tuple[VersionSummary, ...]
    next_cursor: str | None


class FoundVersion(VersionSummary):
    """A version of any of a tenant's adapters."""

    owner: Owner
    adapter: Name


class FoundVersionPage(Frozen):
    """Versions by adapter and number; `next_cursor` is None on the last page."""

    versions: tuple[FoundVersion, ...]
    next_cursor: str | None


class VersionDetail(FoundVersion):
    """Everything that is known of one version.

    `obstacle` says why it may not be served, None when it may; `manifest` is None once it was erased; `report` is the
    newest evaluation that was attached after publishing, with its time `at`.
    """

    obstacle: str | None
    manifest: Manifest | None
    manifest_digest: str
    sealed_bytes: int | None
    signed: bool
    validation: dict[str, Any] | None
    report: dict[str, Any] | None


class VersionName(Frozen):
    """How people and engines call one version."""

    version_id: VersionId
    version: int
    state: str


class Change(Frozen):
    """One value that differs; `field` is its dotted path, None on a side means that the field is not there."""

    field: str
    old: Any
    new: Any


class MembersChanged(Frozen):
    """A list whose order means nothing, such as the transcripts: what only one side has."""

    field: str
    added: tuple[str, ...]
    removed: tuple[str, ...]


class Difference(Frozen):
    """What changed from one version of an adapter to another, in manifest, configuration and attached evaluation."""

    old: VersionName
    new: VersionName
    changes: tuple[Change, ...]
    members: tuple[MembersChanged, ...]
