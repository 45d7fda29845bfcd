"""A job that begins anew says of what was written for it before that it is not to be used."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014_given_up_writings"
down_revision = "0013_kept_answers"
branch_labels = None
depends_on = None


def upgrade() -> None:
    given_up = sa.Column("given_up", sa.Boolean, nullable=False, server_default=sa.false())
    op.add_column("training_writing", given_up)


def downgrade() -> None:
    op.drop_column("training_writing", "given_up")
