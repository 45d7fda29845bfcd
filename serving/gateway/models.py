"""The tables of API keys and of what tenants may use: digests only, never a key."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    Float,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Text,
    UniqueConstraint,
    func,
)
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from kit.database import Base


class ApiKeyRow(Base):
    """One key of one tenant; `prefix` is its public beginning, `digest` the SHA-256 of all of it."""

    __tablename__ = "api_key"
    __table_args__ = (
        UniqueConstraint("digest", name="uq_api_key_digest"),
        UniqueConstraint("key_id", name="uq_api_key_key_id"),
        Index("ix_api_key_prefix", "prefix"),
        CheckConstraint("octet_length(digest) = 32", name="digest"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    key_id: Mapped[str] = mapped_column(Text, server_default=sql("'k' || replace(gen_random_uuid()::text, '-', '')"))
    tenant: Mapped[str] = mapped_column(Text)
    name: Mapped[str] = mapped_column(Text, server_default="")
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=sql("array['*']"))
    prefix: Mapped[str] = mapped_column(Text)
    digest: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    expires_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    revoked_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class TenantLimitRow(Base):
    """What one tenant may use of all gateways together; null = what the settings say."""

    __tablename__ = "tenant_limit"

    tenant: Mapped[str] = mapped_column(Text, primary_key=True)
    requests_per_second: Mapped[float | None] = mapped_column(Float)
    burst: Mapped[int | None] = mapped_column(Integer)
    concurrent: Mapped[int | None] = mapped_column(Integer)
