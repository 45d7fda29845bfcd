"""The base of every process's settings.

A process builds its settings once, at its entry point, and passes them down; nothing else
reads the environment. Every variable begins with ``LORRY_`` (nested values with ``__``
are not used: one flat name per setting, so that a shell, a compose file and a chart read alike).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from kit.errors import SettingsInvalid


class Settings(BaseSettings):
    """What every process of Lorry can be told."""

    model_config = SettingsConfigDict(env_prefix="LORRY_", extra="ignore", frozen=True)

    log_level: str = Field("info", description="debug, info, warning or error")

    @classmethod
    def read(cls) -> Self:
        """Return the settings that the environment gives.

        Raises:
            SettingsInvalid: with a line for every variable that is missing or cannot be used, and the reason.
        """
        try:
            return cls()
        except ValidationError as exc:
            problems = [cls._explain(error) for error in exc.errors()]
            message = "\n".join(f"{variable}: {reason}" for variable, reason in problems)
            raise SettingsInvalid(message, field=problems[0][0]) from None  # its cause would print secrets

    @classmethod
    def read_or_exit(cls, process: str) -> Self:
        """Return the settings, or end a process that cannot start: each problem on standard error, exit code 2."""
        try:
            return cls.read()
        except SettingsInvalid as exc:
            sys.stderr.writelines(f"{process}: {line}\n" for line in exc.message.splitlines())
            raise SystemExit(2) from exc

    @classmethod
    def _explain(cls, error: Any) -> tuple[str, str]:
        """Return the variable of one of pydantic's errors and what is wrong with it, without what may be secret."""
        if not error["loc"]:
            return "settings", error["msg"].removeprefix("Value error, ")
        name = str(error["loc"][0])
        field = cls.model_fields[name]
        if error["type"] == "missing":
            return variable(name), f"is not set ({field.description})"
        reason = error["msg"].removeprefix("Value error, ")
        secret = "Secret" in str(field.annotation) or name.endswith(("_url", "_urls"))  # an address may hold a password
        return variable(name), reason if secret else f"{reason} (got {error['input']!r})"


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return f"LORRY_{name.upper()}"


def _with_driver(url: str) -> str:
    if not url.startswith("postgresql+asyncpg://"):
        raise ValueError("must begin with postgresql+asyncpg://")
    return url


DatabaseUrl = Annotated[str, AfterValidator(_with_driver)]


class DatabaseSettings(Settings):
    """Where PostgreSQL is."""

    database_url: DatabaseUrl = Field(description="postgresql+asyncpg://user:password@host:port/name")
    database_pool_size: int = Field(8, ge=1, description="connections kept open by one process")
    database_timeout_seconds: float = Field(
        15.0, gt=0, description="time-out of one statement, and of waiting for a connection"
    )
    database_lock_timeout_seconds: float = Field(
        5.0, gt=0, description="longest wait for a row that another call holds"
    )
    database_idle_transaction_seconds: float = Field(
        120.0, gt=0, description="PostgreSQL ends a transaction in which nothing was asked for so long"
    )


class StorageSettings(Settings):
    """Where the S3-compatible object store is."""

    s3_bucket: str = Field("lorry", description="bucket that holds everything Lorry keeps")
    s3_prefix: str = Field("", description="key prefix inside the bucket, without a leading slash")
    s3_endpoint_url: str | None = Field(None, description="endpoint of an S3-compatible store; unset = AWS")
    s3_region: str = Field("us-east-1", description="region to sign for")
    s3_access_key_id: str | None = Field(None, description="unset = boto3's own credential chain")
    s3_secret_access_key: SecretStr | None = Field(None, description="unset = boto3's own credential chain")
    s3_timeout_seconds: float = Field(20.0, gt=0, description="how long one S3 request may be silent")
    s3_attempts: int = Field(4, ge=1, le=20, description="how often one S3 call is tried, with growing random pauses")
    s3_threads: int = Field(16, ge=1, le=256, description="S3 calls at once in one process; further ones queue")
    s3_sse: Literal["", "AES256", "aws:kms"] = Field(
        "", description="S3's own encryption at rest; empty = the bucket's"
    )
    s3_sse_kms_key_id: str | None = Field(None, description="KMS key for S3's own encryption; unset = the bucket's")


class MasterKeySettings(Settings):
    """Where the key is that wraps every data key: in a file, or in AWS KMS.

    With both, new data keys are wrapped by KMS and the file opens those that it wrapped before.
    """

    master_key_file: Path | None = Field(None, description="key file of mode 0600, made by `lorry keys init`")
    kms_key_id: str | None = Field(None, description="key id, alias or ARN in AWS KMS")
    kms_endpoint_url: str | None = Field(None, description="endpoint of a KMS-compatible service; unset = AWS")
    kms_region: str = Field("us-east-1", description="region of the KMS key")
    kms_access_key_id: str | None = Field(None, description="unset = boto3's own credential chain")
    kms_secret_access_key: SecretStr | None = Field(None, description="unset = boto3's own credential chain")
    kms_timeout_seconds: float = Field(5.0, gt=0, description="connect and read time-out of one KMS request")
