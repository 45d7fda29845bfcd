"""Answers that the registry keeps say whose they are, and under which keys without a caller's words."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013_kept_answers"
down_revision = "0012_erasure"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("idempotent_request", sa.Column("subject", sa.Text))
    op.create_index("ix_idempotent_request_subject", "idempotent_request", ["subject"])
    # As `registry.idempotency.repository` makes it.
    op.execute("update idempotent_request set key = encode(sha256(convert_to(key, 'UTF8')), 'hex')")


def downgrade() -> None:
    op.execute("delete from idempotent_request")  # a digest is no key, and nothing leads back to it
    op.drop_index("ix_idempotent_request_subject", "idempotent_request")
    op.drop_column("idempotent_request", "subject")
