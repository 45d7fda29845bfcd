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
            postgresql_where=text("state <> 'rejected'"),
        ),
        CheckConstraint(f"state in ({_STATES})", name="state"),
        CheckConstraint("number > 0", name="number"),
        CheckConstraint("version_id ~ '^v[0-9a-f]{32}$'", name="version_id"),
        CheckConstraint("state = 'erased' or manifest is not null", name="manifest"),
        CheckConstraint("state <> 'ready' or ready_at is not null", name="ready_at"),
        CheckConstraint("state <> 'rejected' or reason is not null", name="reason"),
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


class AliasRow(Base):
    """A movable name for a version of the same adapter."""

    __tablename__ = "alias"
    __table_args__ = (
        ForeignKeyConstraint(
            ["adapter_id", "version_id"],
            ["adapter_version.adapter_id", "adapter_version.version_id"],
            name="fk_alias_version",
        ),
    )

    adapter_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    name: Mapped[str] = mapped_column(Text, primary_key=True)
    version_id: Mapped[str] = mapped_column(Text)
    moved_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=_now)


class AuditRow(Base):
    """One thing that happened; rows are only ever added, and name adapters by number, never by user."""

    __tablename__ = "audit"
    __table_args__ = (Index("ix_audit_adapter_id", "adapter_id", "id"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=_now)
    actor: Mapped[str] = mapped_column(Text)
    action: Mapped[str] = mapped_column(Text)
    adapter_id: Mapped[int | None] = mapped_column(BigInteger, ForeignKey("adapter.id"))
    version_id: Mapped[str | None] = mapped_column(Text)
    before: Mapped[str | None] = mapped_column("from", Text)
    after: Mapped[str | None] = mapped_column("to", Text)
    why: Mapped[str | None] = mapped_column(Text)
