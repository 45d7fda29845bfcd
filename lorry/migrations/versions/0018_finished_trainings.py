"""What a worker has trained is kept until it is published, so that whoever goes on with a job has it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0018_finished_trainings"
down_revision = "0017_writers_answers"
branch_labels = None
depends_on = None


def upgrade() -> None:
    job = sa.ForeignKey("training_job.id", ondelete="CASCADE")
    op.create_table(
        "training_finished",
        sa.Column("job_id", sa.Text, job, primary_key=True),
        sa.Column("files", JSONB),
    )
    finished = sa.ForeignKey("training_finished.job_id", ondelete="CASCADE")
    op.create_table(
        "training_finished_part",
        sa.Column("job_id", sa.Text, finished, primary_key=True),
        sa.Column("file", sa.Text, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("training_finished_part")
    op.drop_table("training_finished")
