"""The gateway's: scopes and ends of API keys, tenants' limits, copies, repeated requests, usage, transcripts' names."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0011_gateway"
down_revision = "0010_extraction_batches"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _extend_keys()
    op.create_table(
        "tenant_limit",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("requests_per_second", sa.Float),
        sa.Column("burst", sa.Integer),
        sa.Column("concurrent", sa.Integer),
    )
    op.create_table(
        "gateway_copy",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("heard_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
    )
    op.create_table(
        "gateway_request",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text),
        sa.Column("status", sa.Integer),
        sa.Column("headers", JSONB),
        sa.Column("answer", sa.LargeBinary),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_gateway_request_expires_at", "gateway_request", ["expires_at"])
    op.create_index("ix_gateway_request_tenant_user_id", "gateway_request", ["tenant", "user_id"])
    op.create_table(
        "usage_day",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("user_id", sa.Text, primary_key=True),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
        sa.Column("completion_tokens", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_usage_day_tenant_user_id", "usage_day", ["tenant", "user_id"])
    op.create_table(
        "transcript_name",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("user_id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("transcript_id", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant", "user_id", "transcript_id"],
            ["transcript.tenant", "transcript.user_id", "transcript.id"],
            name="fk_transcript_name_tenant_user_id_transcript_id_transcript",
            ondelete="CASCADE",
        ),
    )
    op.create_index(
        "ix_transcript_name_tenant_user_id_transcript_id",
        "transcript_name",
        ["tenant", "user_id", "transcript_id"],
    )


def _extend_keys() -> None:
    """Add what keys have besides; a key that is there, or that the release before makes, may do everything."""
    made = sa.text("'k' || replace(gen_random_uuid()::text, '-', '')")
    op.add_column("api_key", sa.Column("key_id", sa.Text, server_default=made, nullable=False))
    op.create_unique_constraint("uq_api_key_key_id", "api_key", ["key_id"])
    op.add_column("api_key", sa.Column("name", sa.Text, server_default="", nullable=False))
    op.add_column("api_key", sa.Column("scopes", ARRAY(sa.Text), server_default=sa.text("array['*']"), nullable=False))
    op.add_column("api_key", sa.Column("expires_at", sa.DateTime(timezone=True)))


def downgrade() -> None:
    for table in ("transcript_name", "usage_day", "gateway_request", "gateway_copy", "tenant_limit"):
        op.drop_table(table)
    for column in ("expires_at", "scopes", "name", "key_id"):
        op.drop_column("api_key", column)
