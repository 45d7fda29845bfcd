"""What the gateway can be told."""

from __future__ import annotations

from pydantic import Field, SecretStr

from kit.settings import DatabaseSettings
from serving.extraction.settings import ExtractionSettings
from serving.jobs.settings import BatchSettings


class GatewaySettings(DatabaseSettings, ExtractionSettings, BatchSettings):
    """One gateway process. It keeps nothing: any number of them may run."""

    gateway_host: str = Field("127.0.0.1", description="address to listen on")
    gateway_port: int = Field(8080, ge=1, le=65535, description="port to listen on")
    gateway_max_request_bytes: int = Field(1 << 20, gt=0, description="largest request body")
    gateway_cache_seconds: float = Field(
        1.0, ge=0, le=2, description="how long an alias or an API key is remembered; moves and revocations wait for it"
    )
    gateway_extractions: int = Field(2, ge=1, description="profile extractions that run at once in this process")
    gateway_drain_seconds: int = Field(30, ge=0, description="how long running requests may take when told to stop")
    registry_url: str = Field(pattern=r"^https?://", description="base URL of the registry")
    registry_token: SecretStr = Field(description="bearer token of the registry")
    engine_url: str = Field(pattern=r"^https?://", description="base URL of the engine, or of what balances several")
    engine_token: SecretStr = Field(description="bearer token of the engine")
    engine_timeout_seconds: float = Field(300.0, gt=0, description="longest silence of the engine")
