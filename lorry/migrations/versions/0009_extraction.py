"""Tables of the room that writes them: corrections of profiles, tenants' banks; and what changed in a profile."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009_extraction"
down_revision = "0008_training_health"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("profile", sa.Column("difference", postgresql.JSONB(), nullable=True))
    op.create_table(
        "profile_correction",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("fact_id", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=True),
        sa.Column("statement", postgresql.JSONB(), nullable=True),
        sa.Column("made_by", sa.Text(), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("withdrawn_by", sa.Text(), nullable=True),
        sa.Column("withdrawn_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_profile_correction"),
        sa.CheckConstraint("kind in ('edit', 'confirm', 'forbid')", name="ck_profile_correction_kind"),
        sa.CheckConstraint("(withdrawn_at is null) = (withdrawn_by is null)", name="ck_profile_correction_withdrawn"),
        sa.CheckConstraint("(kind = 'forbid') = (statement is null)", name="ck_profile_correction_statement"),
    )
    op.create_index(
        "ix_profile_correction_in_force",
        "profile_correction",
        ["tenant", "user_id", "fact_id"],
        unique=True,
        postgresql_where=sa.text("withdrawn_at is null"),
    )
    op.create_table(
        "question_bank",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("document", sa.Text(), nullable=True),
        sa.Column("made_by", sa.Text(), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "revision", name="pk_question_bank"),
        sa.CheckConstraint("revision > 0", name="ck_question_bank_revision"),
    )


def downgrade() -> None:
    op.drop_table("question_bank")
    op.drop_table("profile_correction")
    op.drop_column("profile", "difference")
