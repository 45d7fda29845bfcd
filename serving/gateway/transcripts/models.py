"""The table of callers' own names of transcripts."""

from __future__ import annotations

from sqlalchemy import ForeignKeyConstraint, Index, Text
from sqlalchemy.orm import Mapped, mapped_column

from kit.database import Base
from transcripts.models import TranscriptRow


class TranscriptNameRow(Base):
    """A caller's own name of a transcript; it goes with the transcript."""

    __tablename__ = "transcript_name"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant", "user_id", "transcript_id"],
            [TranscriptRow.tenant, TranscriptRow.user_id, TranscriptRow.id],
            ondelete="CASCADE",
        ),
        Index(None, "tenant", "user_id", "transcript_id"),
    )

    tenant: Mapped[str] = mapped_column(Text, primary_key=True)
    user_id: Mapped[str] = mapped_column(Text, primary_key=True)
    name: Mapped[str] = mapped_column(Text, primary_key=True)
    transcript_id: Mapped[str] = mapped_column(Text)
