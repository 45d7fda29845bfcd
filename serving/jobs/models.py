"""The tables of this room: batches and their users, workers, webhooks' deliveries, what tenants may have.

None holds content: a profile is kept by extraction, and a batch's copy of it sealed in the object store.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, DateTime, ForeignKey, Index, Text, func
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from kit.database import Base
from serving.jobs.states import BatchState, DeliveryState, UserState

_MOMENT = DateTime(timezone=True)
_NOW = func.now()
UNFINISHED_SQL = "state in ('queued', 'running', 'paused')"
_json = JSONB(none_as_null=True)


class BatchRow(Base):
    """One batch; `users` is known once it is planned, and `delivered` numbers results without a gap."""

    __tablename__ = "extraction_batch"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    tenant: Mapped[str] = mapped_column(Text)
    selection: Mapped[dict[str, Any]] = mapped_column(_json)
    webhook_url: Mapped[str | None] = mapped_column(Text)
    state: Mapped[BatchState] = mapped_column(Text)
    planner_id: Mapped[str | None] = mapped_column(Text)
    users: Mapped[int] = mapped_column(server_default="0")
    delivered: Mapped[int] = mapped_column(server_default="0")
    done: Mapped[int] = mapped_column(server_default="0")
    failed: Mapped[int] = mapped_column(server_default="0")
    skipped: Mapped[int] = mapped_column(server_default="0")
    error: Mapped[dict[str, Any] | None] = mapped_column(_json)
    submitted_at: Mapped[datetime] = mapped_column(_MOMENT, server_default=_NOW)
    planned_at: Mapped[datetime | None] = mapped_column(_MOMENT)
    going_since: Mapped[datetime | None] = mapped_column(_MOMENT)
    delivered_at: Mapped[datetime | None] = mapped_column(_MOMENT)
    ended_at: Mapped[datetime | None] = mapped_column(_MOMENT)

    __table_args__ = (
        CheckConstraint("id ~ '^b[0-9a-f]{32}$'", name="id"),
        CheckConstraint("(ended_at is null) = (" + UNFINISHED_SQL + ")", name="ended"),
        Index("ix_extraction_batch_listing", "tenant", "submitted_at", "id"),
        Index("ix_extraction_batch_unfinished", "state", "submitted_at", postgresql_where=sql(UNFINISHED_SQL)),
    )


class UserRow(Base):
    """One user of a batch; `run` counts how often somebody took them in hand, and tells late results from due ones."""

    __tablename__ = "extraction_batch_user"

    batch_id: Mapped[str] = mapped_column(ForeignKey("extraction_batch.id", ondelete="CASCADE"), primary_key=True)
    user_id: Mapped[str] = mapped_column(Text, primary_key=True)
    state: Mapped[UserState] = mapped_column(Text, server_default=UserState.WAITING.value)
    version_id: Mapped[str | None] = mapped_column(Text)
    version: Mapped[int | None]
    run: Mapped[int] = mapped_column(server_default="0")
    attempts: Mapped[int] = mapped_column(server_default="0")
    crashes: Mapped[int] = mapped_column(server_default="0")
    not_before: Mapped[datetime | None] = mapped_column(_MOMENT)
    worker_id: Mapped[str | None] = mapped_column(Text)
    held_at: Mapped[datetime | None] = mapped_column(_MOMENT)
    sequence: Mapped[int | None]
    error: Mapped[dict[str, Any] | None] = mapped_column(_json)
    ended_at: Mapped[datetime | None] = mapped_column(_MOMENT)

    __table_args__ = (
        CheckConstraint("(sequence is null) = (state in ('waiting', 'held', 'canceled'))", name="sequence"),
        CheckConstraint("(state = 'held') = (worker_id is not null)", name="worker"),
        Index("ix_extraction_batch_user_turn", "batch_id", "state", "version_id", "user_id"),
        Index("ix_extraction_batch_user_worker", "worker_id", postgresql_where=sql("state = 'held'")),
        Index("uq_extraction_batch_user_sequence", "batch_id", "sequence", unique=True),
        Index("ix_extraction_batch_user_user", "user_id"),
    )


class WorkerRow(Base):
    """One worker, by its stable id; `boot` names its process: pid and start."""

    __tablename__ = "extraction_worker"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    boot: Mapped[str] = mapped_column(Text)
    host: Mapped[str] = mapped_column(Text)
    slots: Mapped[int]
    lease_seconds: Mapped[float]
    started_at: Mapped[datetime] = mapped_column(_MOMENT, server_default=_NOW)
    heard_at: Mapped[datetime] = mapped_column(_MOMENT, server_default=_NOW)
    left_at: Mapped[datetime | None] = mapped_column(_MOMENT)


class DeliveryRow(Base):
    """The one message that a webhook gets of a batch; due at `not_before`."""

    __tablename__ = "extraction_webhook"

    batch_id: Mapped[str] = mapped_column(ForeignKey("extraction_batch.id", ondelete="CASCADE"), primary_key=True)
    state: Mapped[DeliveryState] = mapped_column(Text, server_default=DeliveryState.PENDING.value)
    attempts: Mapped[int] = mapped_column(server_default="0")
    not_before: Mapped[datetime] = mapped_column(_MOMENT, server_default=_NOW)
    problem: Mapped[str | None] = mapped_column(Text)
    ended_at: Mapped[datetime | None] = mapped_column(_MOMENT)

    __table_args__ = (Index("ix_extraction_webhook_due", "not_before", postgresql_where=sql("state = 'pending'")),)


class TenantRow(Base):
    """What one tenant may have, null = as the setting says; and which generation of its webhook secret signs."""

    __tablename__ = "extraction_tenant"

    tenant: Mapped[str] = mapped_column(Text, primary_key=True)
    max_batches: Mapped[int | None]
    max_users: Mapped[int | None]
    secret_generation: Mapped[int] = mapped_column(BigInteger, server_default="0")
    rotated_at: Mapped[datetime | None] = mapped_column(_MOMENT)
