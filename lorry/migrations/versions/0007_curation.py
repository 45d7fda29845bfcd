"""A table of the room that writes it: what people decided about single training pairs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007_curation"
down_revision = "0006_training_jobs"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "training_curation",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("user_id", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("question", sa.Text),
        sa.Column("completion", sa.Text),
        sa.Column("transcript_id", sa.Text),
        sa.Column("decided_by", sa.Text, nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("action in ('drop', 'edit')", name="ck_training_curation_action"),
    )


def downgrade() -> None:
    op.drop_table("training_curation")
