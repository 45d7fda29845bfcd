"""The table of this room: which worker's disk still has to be cleared of an erased user, and which was."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, DateTime, Text, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from kit.database import Base

_MOMENT = DateTime(timezone=True)


class DiskErasureRow(Base):
    """One worker that was asked to clear its disk; jobs and versions are named by their ids, the user not at all.

    `outcome` is ``cleared``, or ``gone`` when an operator has said that the machine will not come back.
    """

    __tablename__ = "training_erasure"

    erasure_id: Mapped[str] = mapped_column(Text, primary_key=True)
    worker_id: Mapped[str] = mapped_column(Text, primary_key=True)
    job_ids: Mapped[list[str]] = mapped_column(JSONB)
    version_ids: Mapped[list[str]] = mapped_column(JSONB)
    asked_at: Mapped[datetime] = mapped_column(_MOMENT, server_default=func.now())
    ended_at: Mapped[datetime | None] = mapped_column(_MOMENT)
    outcome: Mapped[str | None] = mapped_column(Text)
    removed: Mapped[int] = mapped_column(server_default="0")

    __table_args__ = (CheckConstraint("(ended_at is null) = (outcome is null)", name="outcome"),)
