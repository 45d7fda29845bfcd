"""A transcript says what it is found by among states of the same conversation, and whether another one continues it.

What is stored already is marked after the migration, see `lorry.marking`: it takes reading it.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0016_earlier_states"
down_revision = "0015_publishing"
branch_labels = None
depends_on = None


_UNMARKED = {"postgresql_where": sa.text("sought is null")}
_SLOW = {"postgresql_using": "gin", "postgresql_with": {"fastupdate": "off"}}  # every search would read up to 4 MB
_INDEXES: tuple[tuple[str, list[str], dict[str, Any]], ...] = (
    ("ix_transcript_sought", ["sought"], {}),
    ("ix_transcript_marks", ["marks"], _SLOW),
    ("ix_transcript_unmarked", ["tenant", "user_id"], _UNMARKED),
)
_INVALID = sa.text(
    "select exists (select from pg_index where indexrelid = to_regclass(cast(:name as text)) and not indisvalid)"
)


def upgrade() -> None:
    for column in (
        sa.Column("marks", sa.ARRAY(sa.BigInteger)),
        sa.Column("sought", sa.BigInteger),
        sa.Column("is_continued", sa.Boolean, nullable=False, server_default=sa.false()),
    ):
        op.add_column("transcript", column, if_not_exists=True)
    # The columns are committed now; what was broken off after that is done again. Nobody waits for these indexes, and
    # they wait for every transaction that has begun before.
    with op.get_context().autocommit_block():
        patience = op.get_bind().exec_driver_sql("show lock_timeout").scalar_one()
        op.execute("set lock_timeout = 0")
        for name, columns, options in _INDEXES:
            if op.get_bind().execute(_INVALID, {"name": name}).scalar_one():
                op.drop_index(name, "transcript", postgresql_concurrently=True)
            op.create_index(name, "transcript", columns, if_not_exists=True, postgresql_concurrently=True, **options)
        op.execute(f"set lock_timeout = '{patience}'")


def downgrade() -> None:
    for index in ("ix_transcript_unmarked", "ix_transcript_marks", "ix_transcript_sought"):
        op.drop_index(index, "transcript")
    for column in ("is_continued", "sought", "marks"):
        op.drop_column("transcript", column)
