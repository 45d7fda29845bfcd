"""The table of API keys: digests only, never a key."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, DateTime, Identity, Index, LargeBinary, Text, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from kit.database import Base


class ApiKeyRow(Base):
    """One key of one tenant; `prefix` is its public beginning, `digest` the SHA-256 of all of it."""

    __tablename__ = "api_key"
    __table_args__ = (
        UniqueConstraint("digest", name="uq_api_key_digest"),
        Index("ix_api_key_prefix", "prefix"),
        CheckConstraint("octet_length(digest) = 32", name="digest"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    tenant: Mapped[str] = mapped_column(Text)
    prefix: Mapped[str] = mapped_column(Text)
    digest: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    revoked_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
