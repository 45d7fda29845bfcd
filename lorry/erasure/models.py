"""The tables of homes: which LORRY_HOMEs hold users' files, and which of them were cleared of whom."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, DateTime, Text, func
from sqlalchemy.orm import Mapped, mapped_column

from kit.database import Base

_MOMENT = DateTime(timezone=True)


class HomeRow(Base):
    """A LORRY_HOME that holds, or held, files of users of this database."""

    __tablename__ = "home"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    host: Mapped[str] = mapped_column(Text)
    seen_at: Mapped[datetime] = mapped_column(_MOMENT, server_default=func.now())


class HomeErasureRow(Base):
    """A home that was asked to clear itself of one erased user; `outcome` is ``cleared``, or ``gone`` for good."""

    __tablename__ = "home_erasure"

    erasure_id: Mapped[str] = mapped_column(Text, primary_key=True)
    home_id: Mapped[str] = mapped_column(Text, primary_key=True)
    asked_at: Mapped[datetime] = mapped_column(_MOMENT, server_default=func.now())
    ended_at: Mapped[datetime | None] = mapped_column(_MOMENT)
    outcome: Mapped[str | None] = mapped_column(Text)
    removed: Mapped[int] = mapped_column(server_default="0")

    __table_args__ = (CheckConstraint("(ended_at is null) = (outcome is null)", name="outcome"),)
