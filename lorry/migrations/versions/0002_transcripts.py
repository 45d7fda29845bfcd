"""Tables of the room that writes them: transcripts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002_transcripts"
down_revision = "0001_registry"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "transcript",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("source_format", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("turn_count", sa.Integer(), nullable=False),
        sa.Column("user_turn_count", sa.Integer(), nullable=False),
        sa.Column("user_word_count", sa.Integer(), nullable=False),
        sa.Column("imported_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "user_id", "id", name="pk_transcript"),
        sa.CheckConstraint("user_turn_count between 1 and turn_count", name="ck_transcript_has_user_turn"),
    )
    op.create_index(
        "ix_transcript_tenant_user_id_started_at_id", "transcript", ["tenant", "user_id", "started_at", "id"]
    )
    op.create_table(
        "turn",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("transcript_id", sa.Text(), nullable=False),
        sa.Column("index", sa.Integer(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("time", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "search",
            postgresql.TSVECTOR(),
            sa.Computed("case when role = 'user' then to_tsvector('english', left(text, 65536)) end", persisted=True),
            nullable=True,
        ),
        sa.PrimaryKeyConstraint("tenant", "user_id", "transcript_id", "index", name="pk_turn"),
        sa.ForeignKeyConstraint(
            ["tenant", "user_id", "transcript_id"],
            ["transcript.tenant", "transcript.user_id", "transcript.id"],
            name="fk_turn_tenant_user_id_transcript_id_transcript",
            ondelete="CASCADE",
        ),
        sa.CheckConstraint("role in ('user', 'other')", name="ck_turn_role"),
    )
    op.create_index(
        "ix_turn_search", "turn", ["search"], postgresql_using="gin", postgresql_where=sa.text("role = 'user'")
    )


def downgrade() -> None:
    op.drop_table("turn")
    op.drop_table("transcript")
