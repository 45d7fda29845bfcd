"""The tables of this room: profiles as they were extracted, what people corrected of them, tenants' question banks."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from sqlalchemy import BigInteger, CheckConstraint, DateTime, Identity, Index, Text, func
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from kit.database import Base


class ProfileRow(Base):
    """One extraction's profile, the newest of a user being the one that is read.

    `document` is a `Profile` without anybody's corrections; `difference` says how it differs from the one before.
    """

    __tablename__ = "profile"
    __table_args__ = (Index("ix_profile_tenant_user_id_id", "tenant", "user_id", "id"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    tenant: Mapped[str] = mapped_column(Text)
    user_id: Mapped[str] = mapped_column(Text)
    version_id: Mapped[str] = mapped_column(Text)
    document: Mapped[dict[str, Any]] = mapped_column(JSONB)
    difference: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class CorrectionRow(Base):
    """What one person did to one fact; at most one of a fact is in force, and those withdrawn stay for the audit."""

    __tablename__ = "profile_correction"
    __table_args__ = (
        CheckConstraint("kind in ('edit', 'confirm', 'forbid')", name="kind"),
        CheckConstraint("(withdrawn_at is null) = (withdrawn_by is null)", name="withdrawn"),
        CheckConstraint("(kind = 'forbid') = (statement is null)", name="statement"),
        Index(
            "ix_profile_correction_in_force",
            "tenant",
            "user_id",
            "fact_id",
            unique=True,
            postgresql_where=sql("withdrawn_at is null"),
        ),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    tenant: Mapped[str] = mapped_column(Text)
    user_id: Mapped[str] = mapped_column(Text)
    kind: Mapped[Literal["edit", "confirm", "forbid"]] = mapped_column(Text)
    fact_id: Mapped[str] = mapped_column(Text)
    text: Mapped[str] = mapped_column(Text)
    topic: Mapped[str | None] = mapped_column(Text)
    statement: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    made_by: Mapped[str] = mapped_column(Text)
    made_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    withdrawn_by: Mapped[str | None] = mapped_column(Text)
    withdrawn_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class BankRow(Base):
    """One revision of a tenant's question bank as it was written; no document = back to the standard bank."""

    __tablename__ = "question_bank"
    __table_args__ = (CheckConstraint("revision > 0", name="revision"),)

    tenant: Mapped[str] = mapped_column(Text, primary_key=True)
    revision: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    document: Mapped[str | None] = mapped_column(Text)
    made_by: Mapped[str] = mapped_column(Text)
    made_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
