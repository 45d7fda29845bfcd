"""The tables of this room: a user's transcripts and their turns.

Tenant and user stand in both tables' keys, so that no query reaches a user's turns without naming
the user, and all rows of one user lie together.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Computed,
    DateTime,
    ForeignKeyConstraint,
    Index,
    Text,
    false,
    func,
)
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.orm import Mapped, mapped_column

from kit.database import Base
from transcripts.transcript import Role

# 'english' rather than 'simple': a statement about somebody ("likes running") and their own words ("I liked
# my run") rarely share a word form, and without stop words the OR-search would find everything. Words that
# are not English are indexed nearly as they are, on both sides alike.
SEARCH_CONFIGURATION = "english"
# PostgreSQL refuses a tsvector over 1 MiB: of a longer turn only the beginning can be found.
SEARCHED_CHARACTERS = 65_536


class TranscriptRow(Base):
    """One conversation of one user; `id` is the digest of its turns.

    `marks` and `sought` are those of `transcripts.marks`. `sought` is null where it must be compared with the others: a
    release that knows no marks has stored it, which then has none, or has deleted what continued it (by a trigger).
    `is_continued`: another one of the user's holds it whole, so its words are not counted.
    """

    __tablename__ = "transcript"

    tenant: Mapped[str] = mapped_column(Text, primary_key=True)
    user_id: Mapped[str] = mapped_column(Text, primary_key=True)
    id: Mapped[str] = mapped_column(Text, primary_key=True)
    source_format: Mapped[str] = mapped_column(Text)
    title: Mapped[str] = mapped_column(Text)
    started_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    turn_count: Mapped[int]
    user_turn_count: Mapped[int]
    user_word_count: Mapped[int]
    imported_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    marks: Mapped[list[int] | None] = mapped_column(ARRAY(BigInteger), deferred=True)
    sought: Mapped[int | None] = mapped_column(BigInteger, deferred=True)
    is_continued: Mapped[bool] = mapped_column(server_default=false())

    __table_args__ = (
        CheckConstraint("user_turn_count between 1 and turn_count", name="has_user_turn"),
        Index(None, "tenant", "user_id", "started_at", "id"),
        Index(None, "sought"),
        # Without fast updates, of which every search would read up to 4 MB.
        Index(None, "marks", postgresql_using="gin", postgresql_with={"fastupdate": "off"}),
        Index("ix_transcript_unmarked", "tenant", "user_id", postgresql_where=sql("sought is null")),
    )


class TurnRow(Base):
    """One turn; `search` holds the words of a user's own turn and is null for the others'."""

    __tablename__ = "turn"

    tenant: Mapped[str] = mapped_column(Text, primary_key=True)
    user_id: Mapped[str] = mapped_column(Text, primary_key=True)
    transcript_id: Mapped[str] = mapped_column(Text, primary_key=True)
    index: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    role: Mapped[Role] = mapped_column(Text)
    text: Mapped[str] = mapped_column(Text)
    time: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    search: Mapped[str | None] = mapped_column(
        TSVECTOR,
        Computed(
            f"case when role = 'user' "
            f"then to_tsvector('{SEARCH_CONFIGURATION}', left(text, {SEARCHED_CHARACTERS})) end",
            persisted=True,
        ),
    )

    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant", "user_id", "transcript_id"],
            ["transcript.tenant", "transcript.user_id", "transcript.id"],
            ondelete="CASCADE",
        ),
        CheckConstraint("role in ('user', 'other')", name="role"),
        Index(None, "search", postgresql_using="gin", postgresql_where=sql("role = 'user'")),
    )
