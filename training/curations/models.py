"""The table of this room: one row a decision. It holds content: what somebody put in a pair's place."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from sqlalchemy import CheckConstraint, DateTime, Text, func
from sqlalchemy.orm import Mapped, mapped_column

from kit.database import Base


class CurationRow(Base):
    """What was decided about one pair of one user's, named by the pair's key."""

    __tablename__ = "training_curation"

    tenant: Mapped[str] = mapped_column(Text, primary_key=True)
    user_id: Mapped[str] = mapped_column(Text, primary_key=True)
    key: Mapped[str] = mapped_column(Text, primary_key=True)
    action: Mapped[Literal["drop", "edit"]] = mapped_column(Text)
    question: Mapped[str | None] = mapped_column(Text)
    completion: Mapped[str | None] = mapped_column(Text)
    transcript_id: Mapped[str | None] = mapped_column(Text)
    decided_by: Mapped[str] = mapped_column(Text)
    decided_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())

    __table_args__ = (CheckConstraint("action in ('drop', 'edit')", name="action"),)
