"""What a question writer was paid for is kept where its state is, so that whoever goes on with a job has it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017_writers_answers"
down_revision = "0016_earlier_states"
branch_labels = None
depends_on = None


def upgrade() -> None:
    writing = sa.ForeignKey("training_writing.job_id", ondelete="CASCADE")
    op.create_table(
        "training_answer",
        sa.Column("job_id", sa.Text, writing, primary_key=True),
        sa.Column("request", sa.Text, primary_key=True),
        sa.Column("answer", sa.LargeBinary, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("training_answer")
