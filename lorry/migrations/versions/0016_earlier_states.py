"""A transcript says what it is found by among states of the same conversation, and whether another one continues it.

What is stored already is marked after the migration, see `lorry.schema`: it takes reading it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016_earlier_states"
down_revision = "0015_publishing"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("transcript", sa.Column("marks", sa.ARRAY(sa.BigInteger)))
    op.add_column("transcript", sa.Column("sought", sa.BigInteger))
    is_continued = sa.Column("is_continued", sa.Boolean, nullable=False, server_default=sa.false())
    op.add_column("transcript", is_continued)
    op.create_index("ix_transcript_sought", "transcript", ["sought"])
    slow = {"fastupdate": "off"}  # every search would read up to 4 MB of fast updates
    op.create_index("ix_transcript_marks", "transcript", ["marks"], postgresql_using="gin", postgresql_with=slow)
    unmarked = sa.text("sought is null")
    op.create_index("ix_transcript_unmarked", "transcript", ["tenant", "user_id"], postgresql_where=unmarked)


def downgrade() -> None:
    for index in ("ix_transcript_unmarked", "ix_transcript_marks", "ix_transcript_sought"):
        op.drop_index(index, "transcript")
    for column in ("is_continued", "sought", "marks"):
        op.drop_column("transcript", column)
