"""The tables of this room: erasures and their steps. One without an end names its user; one that has ended does not.

As long as an erasure names a user, triggers of the database refuse every row of theirs: see migration 0012.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, DateTime, ForeignKey, Index, Text, func
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from kit.database import Base

_MOMENT = DateTime(timezone=True)


class ErasureRow(Base):
    """One erasure of one user; `subject` is a digest of who it is, the only thing that stays."""

    __tablename__ = "erasure"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    tenant: Mapped[str] = mapped_column(Text)
    user_id: Mapped[str | None] = mapped_column(Text)
    subject: Mapped[str] = mapped_column(Text)
    asked_by: Mapped[str] = mapped_column(Text)
    asked_at: Mapped[datetime] = mapped_column(_MOMENT, server_default=func.now())
    ended_at: Mapped[datetime | None] = mapped_column(_MOMENT)

    __table_args__ = (
        CheckConstraint("id ~ '^e[0-9a-f]{32}$'", name="id"),
        CheckConstraint("(user_id is null) = (ended_at is not null)", name="ended"),
        Index("uq_erasure_user", "tenant", "user_id", unique=True, postgresql_where=sql("user_id is not null")),
        Index("ix_erasure_subject", "tenant", "subject", "asked_at"),
    )


class StepRow(Base):
    """One store of one erasure: what was found there, what it waits for, and when nothing was left.

    `found` counts by kind; `waits_for` and `told` (how it went, once it is done) hold sentences. None names the user.
    """

    __tablename__ = "erasure_step"

    erasure_id: Mapped[str] = mapped_column(ForeignKey("erasure.id", ondelete="CASCADE"), primary_key=True)
    store: Mapped[str] = mapped_column(Text, primary_key=True)
    found: Mapped[dict[str, Any]] = mapped_column(JSONB)
    waits_for: Mapped[list[str]] = mapped_column(JSONB)
    told: Mapped[list[str]] = mapped_column(JSONB)
    attempts: Mapped[int]
    began_at: Mapped[datetime] = mapped_column(_MOMENT, server_default=func.now())
    looked_at: Mapped[datetime] = mapped_column(_MOMENT, server_default=func.now())
    ended_at: Mapped[datetime | None] = mapped_column(_MOMENT)
