"""The base of every process's settings.

A process builds its settings once, at its entry point, and passes them down; nothing else
reads the environment. Every variable begins with ``LORRY_`` (nested values with ``__``
are not used: one flat name per setting, so that a shell, a compose file and a chart read alike).
"""

from __future__ import annotations

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """What every process of Lorry can be told."""

    model_config = SettingsConfigDict(env_prefix="LORRY_", extra="ignore", frozen=True)

    log_level: str = Field("info", description="debug, info, warning or error")


class DatabaseSettings(Settings):
    """Where PostgreSQL is."""

    database_url: str = Field(description="postgresql+asyncpg://user:password@host:port/name")
    database_pool_size: int = Field(8, ge=1, description="connections kept open by one process")
    database_timeout_seconds: float = Field(15.0, gt=0, description="time-out of one statement")


class StorageSettings(Settings):
    """Where the S3-compatible object store is."""

    s3_bucket: str = Field("lorry", description="bucket that holds everything Lorry keeps")
    s3_prefix: str = Field("", description="key prefix inside the bucket, without a leading slash")
    s3_endpoint_url: str | None = Field(None, description="endpoint of an S3-compatible store; unset = AWS")
    s3_region: str = Field("us-east-1", description="region to sign for")
    s3_access_key_id: str | None = Field(None, description="unset = boto3's own credential chain")
    s3_secret_access_key: SecretStr | None = Field(None, description="unset = boto3's own credential chain")
    s3_timeout_seconds: float = Field(20.0, gt=0, description="connect and read time-out of one S3 request")
