"""What the process that conducts erasures can be told."""

from __future__ import annotations

from pydantic import Field, SecretStr

from kit.settings import DatabaseSettings


class ErasureSettings(DatabaseSettings):
    """One process that conducts erasures. Any number of them may run; one does the work."""

    registry_url: str = Field(pattern=r"^https?://", description="base URL of the registry")
    registry_token: SecretStr = Field(description="the registry's operator token")
    engine_token: SecretStr | None = Field(
        None, description="bearer token of the engines, whose receipts go into the report; unset = without them"
    )
    erasure_poll_seconds: float = Field(2.0, gt=0, description="how often it looks for something to erase")
