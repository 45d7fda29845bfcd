"""The table of what was used: one row a user and day."""

from __future__ import annotations

import datetime

from sqlalchemy import BigInteger, Date, DateTime, Index, Text, func
from sqlalchemy.orm import Mapped, mapped_column

from kit.database import Base


class UsageDayRow(Base):
    """What one user's adapter was asked on one day (UTC).

    `counted_at` is when the first of it was counted, which may be before it was written: an erasure that ended
    between the two hides whose it is.
    """

    __tablename__ = "usage_day"
    __table_args__ = (Index(None, "tenant", "user_id"),)

    tenant: Mapped[str] = mapped_column(Text, primary_key=True)
    day: Mapped[datetime.date] = mapped_column(Date, primary_key=True)
    user_id: Mapped[str] = mapped_column(Text, primary_key=True)
    requests: Mapped[int] = mapped_column(BigInteger)
    prompt_tokens: Mapped[int] = mapped_column(BigInteger)
    completion_tokens: Mapped[int] = mapped_column(BigInteger)
    counted_at: Mapped[datetime.datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
