"""The table of gateways that run, which share tenants' limits."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import DateTime, Text, func
from sqlalchemy.orm import Mapped, mapped_column

from kit.database import Base


class GatewayCopyRow(Base):
    """One running gateway."""

    __tablename__ = "gateway_copy"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    heard_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
