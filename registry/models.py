"""The registry's tables.

What must never happen is forbidden by the database itself: two versions with one number, one
content published twice, a changed manifest, an illegal step from state to state, an alias that
names another adapter's version, an edited audit trail. The triggers are in migration 0001.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from kit.database import Base


class State(StrEnum):
    """Where a version stands; only `READY` resolves."""

    PENDING = "pending"
    UPLOADED = "uploaded"
    READY = "ready"
    REJECTED = "rejected"
    RETIRED = "retired"
    ERASED = "erased"
    SUSPENDED = "suspended"


BEGIN, BEGIN_AGAIN = "begin", "begin again"  # what the audit trail calls the two; reconcile asks when the last was

_STATES = ", ".join(f"'{state}'" for state in State)
_now = func.now()


class BaseModelRow(Base):
    """A base model that adapters may be made for; `identity` is a `BaseIdentity`."""

    __tablename__ = "base_model"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    identity: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=_now)


class AdapterRow(Base):
    """A named line of versions of one user."""

    __tablename__ = "adapter"
    __table_args__ = (
        UniqueConstraint("tenant", "user_id", "name", name="uq_adapter_owner_name"),
        Index("ix_adapter_tenant_id", "tenant", "id"),
        Index("ix_adapter_names", "tenant", "user_id", "name"),  # by code point: collate "C", see the migration
        Index("ix_adapter_created_at", "tenant", "created_at", "id"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    tenant: Mapped[str] = mapped_column(Text)
    user_id: Mapped[str] = mapped_column(Text)
    name: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=_now)


class VersionRow(Base):
    """One version. `manifest` is JSON rather than JSONB, which would rewrite numbers and so change its digest."""

    __tablename__ = "adapter_version"
    __table_args__ = (
        UniqueConstraint("adapter_id", "number", name="uq_adapter_version_number"),
        UniqueConstraint("adapter_id", "version_id", name="uq_adapter_version_adapter"),
        Index(
            "uq_adapter_version_content",
            "adapter_id",
            "content_digest",
            unique=True,
            postgresql_where=text("state in ('pending', 'uploaded', 'ready', 'suspended')"),
        ),
        CheckConstraint(f"state in ({_STATES})", name="state"),
        CheckConstraint("number > 0", name="number"),
        CheckConstraint("version_id ~ '^v[0-9a-f]{32}$'", name="version_id"),
        CheckConstraint("state = 'erased' or manifest is not null", name="manifest"),
        CheckConstraint("state <> 'ready' or ready_at is not null", name="ready_at"),
        CheckConstraint("state <> 'rejected' or reason is not null", name="reason"),
        CheckConstraint("state <> 'retired' or retired_at is not null", name="retired_at"),
        Index("ix_adapter_version_unfinished", "created_at", postgresql_where=text("state in ('pending', 'uploaded')")),
        Index(
            "ix_adapter_version_retired",
            "retired_at",
            postgresql_where=text("state = 'retired' and removed_at is null"),
        ),
        Index(
            "ix_adapter_version_unremoved",
            "version_id",
            postgresql_where=text("state in ('erased', 'rejected') and removed_at is null"),
        ),
        Index("ix_adapter_version_base_id", "base_id", "version_id"),
        Index("ix_adapter_version_state", "state", "adapter_id", postgresql_where=text("state <> 'ready'")),
    )

    version_id: Mapped[str] = mapped_column(Text, primary_key=True)
    adapter_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("adapter.id"))
    number: Mapped[int] = mapped_column(Integer)
    state: Mapped[str] = mapped_column(Text, default=State.PENDING)
    base_id: Mapped[str] = mapped_column(Text, ForeignKey("base_model.id"))
    content_digest: Mapped[str] = mapped_column(Text)
    manifest: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    manifest_digest: Mapped[str] = mapped_column(Text)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    reason: Mapped[str | None] = mapped_column(Text)
    reason_field: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    ready_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    suspended_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    retired_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    removed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    erased_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    data_key_id: Mapped[str | None] = mapped_column(Text, ForeignKey("data_key.id"))
    sealed_bytes: Mapped[int | None] = mapped_column(BigInteger)
    signature: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    validation: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))


class AliasRow(Base):
    """A movable name for a version of the same adapter."""

    __tablename__ = "alias"
    __table_args__ = (
        ForeignKeyConstraint(
            ["adapter_id", "version_id"],
            ["adapter_version.adapter_id", "adapter_version.version_id"],
            name="fk_alias_version",
        ),
        Index("ix_alias_version_id", "version_id"),
        Index("ix_alias_name", "name", "adapter_id", postgresql_where=text("name <> 'live'")),
    )

    adapter_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    name: Mapped[str] = mapped_column(Text, primary_key=True)
    version_id: Mapped[str] = mapped_column(Text)
    moved_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=_now)


class AuditRow(Base):
    """One thing that happened; rows are only ever added, and name adapters by number, never by user."""

    __tablename__ = "audit"
    __table_args__ = (
        Index("ix_audit_adapter_id", "adapter_id", "id"),
        Index("ix_audit_version_id", "version_id", "id"),
        Index("ix_audit_subject", "subject", "id", postgresql_where=text("subject is not null")),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=_now)
    actor: Mapped[str] = mapped_column(Text)
    action: Mapped[str] = mapped_column(Text)
    adapter_id: Mapped[int | None] = mapped_column(BigInteger, ForeignKey("adapter.id"))
    version_id: Mapped[str | None] = mapped_column(Text)
    before: Mapped[str | None] = mapped_column("from", Text)
    after: Mapped[str | None] = mapped_column("to", Text)
    why: Mapped[str | None] = mapped_column(Text)
    tenant: Mapped[str | None] = mapped_column(Text)
    subject: Mapped[str | None] = mapped_column(Text)


class DataKeyRow(Base):
    """The key that seals one owner's content; `wrapped` None = destroyed, and with it every copy of that content."""

    __tablename__ = "data_key"
    __table_args__ = (
        CheckConstraint("id ~ '^k[0-9a-f]{32}$'", name="id"),
        CheckConstraint(
            "(wrapped is null) = (destroyed_at is not null) and (wrapped is null) = (master_key_id is null)",
            name="wrapped",
        ),
        Index("uq_data_key_owner", "tenant", "user_id", unique=True, postgresql_where=text("destroyed_at is null")),
        Index("ix_data_key_master_key_id", "master_key_id", "id"),
    )

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    tenant: Mapped[str] = mapped_column(Text)
    user_id: Mapped[str] = mapped_column(Text)
    wrapped: Mapped[bytes | None] = mapped_column(LargeBinary)
    master_key_id: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=_now)
    rewrapped_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    destroyed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class SuspensionRow(Base):
    """A user, or one adapter of theirs, that serves nowhere; `adapter` is empty for the whole user."""

    __tablename__ = "suspension"

    tenant: Mapped[str] = mapped_column(Text, primary_key=True)
    user_id: Mapped[str] = mapped_column(Text, primary_key=True)
    adapter: Mapped[str] = mapped_column(Text, primary_key=True)
    since: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=_now)
    actor: Mapped[str] = mapped_column(Text)
    why: Mapped[str] = mapped_column(Text)


class AliasMoveRow(Base):
    """One move of an alias, kept for rollback and history; `version_id` None = the alias was removed.

    `action` says what moved it: move, promote, rollback or erase.
    """

    __tablename__ = "alias_move"
    __table_args__ = (Index("ix_alias_move_adapter_id", "adapter_id", "name", "id"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    adapter_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("adapter.id"))
    name: Mapped[str] = mapped_column(Text)
    action: Mapped[str] = mapped_column(Text)
    version_id: Mapped[str | None] = mapped_column(Text, ForeignKey("adapter_version.version_id"))
    before_version_id: Mapped[str | None] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=_now)
    actor: Mapped[str] = mapped_column(Text)
    why: Mapped[str | None] = mapped_column(Text)


class EvaluationReportRow(Base):
    """A report attached to a version after it was published; the newest counts."""

    __tablename__ = "evaluation_report"
    __table_args__ = (Index("ix_evaluation_report_version_id", "version_id", "id"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    version_id: Mapped[str] = mapped_column(Text, ForeignKey("adapter_version.version_id"))
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=_now)
    actor: Mapped[str] = mapped_column(Text)
    report: Mapped[dict[str, Any]] = mapped_column(JSON)


class TenantPolicyRow(Base):
    """What a tenant may publish and when an alias may move; a tenant without a row has the defaults."""

    __tablename__ = "tenant_policy"

    tenant: Mapped[str] = mapped_column(Text, primary_key=True)
    policy: Mapped[dict[str, Any]] = mapped_column(JSON)
    changed_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=_now)


class VersionTranscriptRow(Base):
    """Which transcripts a version was trained on, so that the question can be asked the other way round."""

    __tablename__ = "version_transcript"
    __table_args__ = (Index("ix_version_transcript_version_id", "version_id"),)

    transcript_id: Mapped[str] = mapped_column(Text, primary_key=True)
    version_id: Mapped[str] = mapped_column(Text, ForeignKey("adapter_version.version_id"), primary_key=True)


class EngineRow(Base):
    """One engine; `incarnation` changes with every start, `holdings_digest` says which report is stored.

    `base_id` None = nobody has registered the base model that it serves, yet.
    """

    __tablename__ = "engine"
    __table_args__ = (Index("ix_engine_last_seen_at", "last_seen_at"),)

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    base_id: Mapped[str | None] = mapped_column(Text, ForeignKey("base_model.id"))
    address: Mapped[str | None] = mapped_column(Text)
    facts: Mapped[dict[str, Any]] = mapped_column(JSON)
    incarnation: Mapped[str] = mapped_column(Text)
    holdings_digest: Mapped[str | None] = mapped_column(Text)
    registered_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=_now)
    last_seen_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=_now)
    left_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class EngineHoldingRow(Base):
    """What an engine last said that it holds of a version, and how many requests lean on it."""

    __tablename__ = "engine_holding"
    __table_args__ = (
        CheckConstraint("tier in ('disk', 'host', 'device')", name="tier"),
        Index("ix_engine_holding_version_id", "version_id"),
    )

    engine_id: Mapped[str] = mapped_column(Text, ForeignKey("engine.id", ondelete="cascade"), primary_key=True)
    version_id: Mapped[str] = mapped_column(Text, primary_key=True)
    tier: Mapped[str] = mapped_column(Text)
    leases: Mapped[int] = mapped_column(Integer, server_default=text("0"))


class IdempotentRequestRow(Base):
    """A request that carried an idempotency key, and what it was answered; `status` None = still running.

    `key` is a digest, because callers choose their keys. `subject` is the owner whom the request is about, as in the
    audit trail; empty = nobody, None = the release before wrote the row, and whom it is about is not known.
    """

    __tablename__ = "idempotent_request"
    __table_args__ = (Index("ix_idempotent_request_at", "at"), Index("ix_idempotent_request_subject", "subject"))

    tenant: Mapped[str] = mapped_column(Text, primary_key=True)
    key: Mapped[str] = mapped_column(Text, primary_key=True)
    digest: Mapped[str] = mapped_column(Text)
    subject: Mapped[str | None] = mapped_column(Text)
    status: Mapped[int | None] = mapped_column(Integer)
    answer: Mapped[bytes | None] = mapped_column(LargeBinary)
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=_now)
