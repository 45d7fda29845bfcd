"""What travels between the registry and who steers it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from kit.names import Name
from registry.lifecycle.policy import TenantPolicy
from registry.manifest import LIVE, Frozen, JsonObject, Owner, VersionId

CANDIDATE = "candidate"
PREVIOUS = "previous"

Text = Annotated[str, Field(max_length=1000, pattern=r"^[^\x00]*$")]
Reason = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^[^\x00]*$")]


class AliasMove(Frozen):
    """A compare-and-swap: `expected_version_id` None means that the alias must not exist yet."""

    version_id: VersionId
    expected_version_id: VersionId | None = None
    why: Text = ""


class Promotion(Frozen):
    """Let `target` name what `source` names.

    `version_id` is what the caller saw `source` name, `expected_version_id` what it saw `target` name; either is
    compared only when it is given.
    """

    source: Name = CANDIDATE
    target: Name = LIVE
    version_id: VersionId | None = None
    expected_version_id: VersionId | None = None
    why: Text = ""


class Rollback(Frozen):
    """Let an alias name again what it named before; `expected_version_id` is what the caller wants to leave.

    With it, asking again for a rollback whose answer was lost changes nothing further.
    """

    alias: Name = LIVE
    expected_version_id: VersionId | None = None
    why: Text = ""


class AliasMoved(Frozen):
    """What an alias names now, and what it named before: by id, and by number for people."""

    alias: Name
    version_id: VersionId
    before_version_id: VersionId | None
    version: int | None = None
    before_version: int | None = None


class AliasHistoryEntry(Frozen):
    """One move of an alias; `version_id` None = the alias was removed because its version was erased."""

    alias: str
    action: str
    version_id: str | None
    version: int | None
    before_version_id: str | None
    at: datetime
    actor: str
    why: str | None


class AliasHistory(Frozen):
    """Moves, the newest first; `next_cursor` is None on the last page."""

    moves: tuple[AliasHistoryEntry, ...]
    next_cursor: str | None


class Why(Frozen):
    """A reason, for the audit trail and for whoever asks why something does not serve."""

    why: Reason


class VersionState(Frozen):
    """Where a version stands now."""

    version_id: VersionId
    version: int
    state: str
    reason: str | None


class Suspension(Frozen):
    """A user or, with `adapter`, one adapter that serves nowhere."""

    owner: Owner
    adapter: str | None
    since: datetime
    actor: str
    why: str


class SuspensionPage(Frozen):
    """Suspensions of a tenant by user and adapter; `next_cursor` is None on the last page."""

    suspensions: tuple[Suspension, ...]
    next_cursor: str | None


class Erasure(Frozen):
    """A demand to erase; `force` does not wait for engines that answer requests with it."""

    why: Reason
    force: bool = False


class Tombstone(Frozen):
    """What is left of a version: ids and times. `removed_at` is when its bytes were gone for good."""

    version_id: VersionId
    version: int
    erased_at: datetime
    removed_at: datetime | None


class OwnerErased(Frozen):
    """What erasing an owner did; `already` counts versions that had been erased before."""

    owner: Owner
    erased: int
    already: int
    data_key_destroyed: bool


class RemainsHolder(Frozen):
    """An engine that said, when it was last seen, that it holds versions of an owner."""

    engine_id: str
    state: str
    last_seen_at: datetime
    version_ids: tuple[VersionId, ...]


class OwnerRemains(Frozen):
    """What there is of an owner: `unremoved` counts tombstones whose bytes may be left, `data_keys` keys that open.

    `settled_at` is when the last URL lapses with which somebody could put bytes back; None when nothing can be.
    """

    adapters: int
    versions: int
    erased: int
    unremoved: int
    data_keys: int
    settled_at: datetime | None
    version_ids: tuple[VersionId, ...]
    holders: tuple[RemainsHolder, ...]


class OwnerForgotten(Frozen):
    """Whether an owner's name is gone from what is left of them; False = not everything is erased and removed yet."""

    forgotten: bool
    adapters: int


class Evaluation(Frozen):
    """A report to attach to a version."""

    report: JsonObject


class EvaluationReport(Frozen):
    """A report that was attached to a version."""

    id: int
    version_id: VersionId
    at: datetime
    actor: str
    report: JsonObject


class AuditEntry(Frozen):
    """One thing that happened: who, when, from, to, why.

    `subject` is whom or what it happened to where that is no version: an owner, by the opaque id that outlives an
    erasure, or a master key.
    """

    id: int
    at: datetime
    actor: str
    action: str
    tenant: str | None
    subject: str | None = None
    version_id: str | None
    before: str | None
    after: str | None
    why: str | None


class AuditPage(Frozen):
    """Entries, the newest first; `next_cursor` is None on the last page."""

    entries: tuple[AuditEntry, ...]
    next_cursor: str | None


class PolicyChange(Frozen):
    """A tenant's new policy, whole, and why."""

    policy: TenantPolicy
    why: Text = ""


MoveAction = Literal["move", "promote", "rollback", "erase"]
