"""A job says what it is about to publish, so that whoever ends it can take that back."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015_publishing"
down_revision = "0014_given_up_writings"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("training_job", sa.Column("publishing", sa.Text))
    published = sa.text("state = 'canceled' and publishing is not null")
    op.create_index("ix_training_job_publishing", "training_job", ["id"], postgresql_where=published)


def downgrade() -> None:
    op.drop_index("ix_training_job_publishing", "training_job")
    op.drop_column("training_job", "publishing")
