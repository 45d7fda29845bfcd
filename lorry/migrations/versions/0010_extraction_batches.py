"""Batch extraction: batches and their users, the workers that work them off, webhooks' messages, tenants' limits."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010_extraction_batches"
down_revision = "0009_extraction"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True)
_UNFINISHED = "state in ('queued', 'running', 'paused')"


def upgrade() -> None:
    now = sa.text("now()")
    json = postgresql.JSONB()
    op.create_table(
        "extraction_batch",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("selection", json, nullable=False),
        sa.Column("webhook_url", sa.Text),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("planner_id", sa.Text),
        *(
            sa.Column(name, sa.Integer, server_default="0", nullable=False)
            for name in ("users", "delivered", "done", "failed", "skipped")
        ),
        sa.Column("error", json),
        sa.Column("submitted_at", _MOMENT, server_default=now, nullable=False),
        *(sa.Column(name, _MOMENT) for name in ("planned_at", "going_since", "delivered_at", "ended_at")),
        sa.CheckConstraint("id ~ '^b[0-9a-f]{32}$'", name="ck_extraction_batch_id"),
        sa.CheckConstraint(f"(ended_at is null) = ({_UNFINISHED})", name="ck_extraction_batch_ended"),
    )
    op.create_index("ix_extraction_batch_listing", "extraction_batch", ["tenant", "submitted_at", "id"])
    op.create_index(
        "ix_extraction_batch_unfinished",
        "extraction_batch",
        ["state", "submitted_at"],
        postgresql_where=sa.text(_UNFINISHED),
    )
    op.create_table(
        "extraction_batch_user",
        sa.Column(
            "batch_id",
            sa.Text,
            sa.ForeignKey(
                "extraction_batch.id", ondelete="CASCADE", name="fk_extraction_batch_user_batch_id_extraction_batch"
            ),
            primary_key=True,
        ),
        sa.Column("user_id", sa.Text, primary_key=True),
        sa.Column("state", sa.Text, server_default="waiting", nullable=False),
        sa.Column("version_id", sa.Text),
        sa.Column("version", sa.Integer),
        *(sa.Column(name, sa.Integer, server_default="0", nullable=False) for name in ("run", "attempts", "crashes")),
        sa.Column("not_before", _MOMENT),
        sa.Column("worker_id", sa.Text),
        sa.Column("held_at", _MOMENT),
        sa.Column("sequence", sa.Integer),
        sa.Column("error", json),
        sa.Column("ended_at", _MOMENT),
        sa.CheckConstraint(
            "(sequence is null) = (state in ('waiting', 'held', 'canceled'))", name="ck_extraction_batch_user_sequence"
        ),
        sa.CheckConstraint("(state = 'held') = (worker_id is not null)", name="ck_extraction_batch_user_worker"),
    )
    op.create_index(
        "ix_extraction_batch_user_turn", "extraction_batch_user", ["batch_id", "state", "version_id", "user_id"]
    )
    op.create_index(
        "ix_extraction_batch_user_worker",
        "extraction_batch_user",
        ["worker_id"],
        postgresql_where=sa.text("state = 'held'"),
    )
    op.create_index("uq_extraction_batch_user_sequence", "extraction_batch_user", ["batch_id", "sequence"], unique=True)
    op.create_index("ix_extraction_batch_user_user", "extraction_batch_user", ["user_id"])
    op.create_table(
        "extraction_worker",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("boot", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("slots", sa.Integer, nullable=False),
        sa.Column("lease_seconds", sa.Float, nullable=False),
        sa.Column("started_at", _MOMENT, server_default=now, nullable=False),
        sa.Column("heard_at", _MOMENT, server_default=now, nullable=False),
        sa.Column("left_at", _MOMENT),
    )
    op.create_table(
        "extraction_webhook",
        sa.Column(
            "batch_id",
            sa.Text,
            sa.ForeignKey(
                "extraction_batch.id", ondelete="CASCADE", name="fk_extraction_webhook_batch_id_extraction_batch"
            ),
            primary_key=True,
        ),
        sa.Column("state", sa.Text, server_default="pending", nullable=False),
        sa.Column("attempts", sa.Integer, server_default="0", nullable=False),
        sa.Column("not_before", _MOMENT, server_default=now, nullable=False),
        sa.Column("problem", sa.Text),
        sa.Column("ended_at", _MOMENT),
    )
    op.create_index(
        "ix_extraction_webhook_due",
        "extraction_webhook",
        ["not_before"],
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_table(
        "extraction_tenant",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("max_batches", sa.Integer),
        sa.Column("max_users", sa.Integer),
        sa.Column("secret_generation", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("rotated_at", _MOMENT),
    )


def downgrade() -> None:
    for table in (
        "extraction_tenant",
        "extraction_webhook",
        "extraction_worker",
        "extraction_batch_user",
        "extraction_batch",
    ):
        op.drop_table(table)
