"""An index for what is asked at every scrape: which jobs failed lately."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008_training_health"
down_revision = "0007_curation"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_training_job_failed", "training_job", ["ended_at"], postgresql_where=sa.text("state = 'failed'")
    )


def downgrade() -> None:
    op.drop_index("ix_training_job_failed", table_name="training_job")
