"""What the gateway can be told."""

from __future__ import annotations

from pydantic import Field, SecretStr

from kit.settings import DatabaseSettings
from serving.extraction.settings import BaseEngineSettings, ExtractionSettings
from serving.jobs.settings import BatchSettings


class GatewaySettings(DatabaseSettings, ExtractionSettings, BaseEngineSettings, BatchSettings):
    """One gateway process. It keeps nothing: any number of them may run."""

    gateway_host: str = Field("127.0.0.1", description="address to listen on")
    gateway_port: int = Field(8080, ge=1, le=65535, description="port to listen on")
    gateway_max_request_bytes: int = Field(1 << 20, gt=0, description="largest request body, but for transcripts")
    gateway_max_transcript_bytes: int = Field(8 << 20, gt=0, description="largest body of one transcript")
    gateway_max_bulk_bytes: int = Field(32 << 20, gt=0, description="largest body of a bulk upload of transcripts")
    gateway_bodies_bytes: int = Field(
        256 << 20, gt=0, description="bodies of all running requests together in this process; half of it for a tenant"
    )
    gateway_cache_seconds: float = Field(
        1.0,
        ge=0,
        le=2,
        description="how long an alias, an API key and who is being erased are remembered; what changes waits for it",
    )
    gateway_stale_seconds: float = Field(
        300.0,
        ge=0,
        le=3600,
        description="how long they are remembered while the registry or the database does not answer",
    )
    gateway_extractions: int = Field(2, ge=1, description="profile extractions that run at once in this process")
    gateway_requests_per_second: float = Field(
        50.0,
        gt=0,
        description="requests that a tenant may send to all gateways together, unless it has a limit of its own",
    )
    gateway_burst: int = Field(200, ge=1, description="requests that a tenant may send at once after a pause")
    gateway_concurrent_requests: int = Field(256, ge=1, description="requests of a tenant that may run at once")
    gateway_copies_seconds: float = Field(
        5.0, gt=0, le=60, description="how often a gateway says that it lives, and counts those that share the limits"
    )
    gateway_deadline_seconds: float = Field(
        600.0, gt=0, description="how long a request may take to be answered; `x-lorry-deadline` shortens it"
    )
    gateway_idempotency_seconds: float = Field(
        3600.0, gt=0, description="how long the answer to a request with an `Idempotency-Key` is kept"
    )
    gateway_usage_seconds: float = Field(5.0, gt=0, description="how often counted usage is written down")
    gateway_fallback_characters: int = Field(
        4000,
        ge=100,
        description="of the profile that the base model gets in its prompt for `x-lorry-fallback: profile`",
    )
    gateway_notice_seconds: float = Field(
        2.0, ge=0, description="how long a gateway that was told to stop says so on /readyz before it takes nothing new"
    )
    gateway_drain_seconds: int = Field(30, ge=0, description="how long running requests may take after that")
    registry_url: str = Field(pattern=r"^https?://", description="base URL of the registry")
    registry_token: SecretStr = Field(description="bearer token of the registry")
    engine_url: str = Field(pattern=r"^https?://", description="base URL of the engine, or of what balances several")
    engine_token: SecretStr = Field(description="bearer token of the engine")
    engine_timeout_seconds: float = Field(300.0, gt=0, description="longest silence of the engine")
    engine_connections: int = Field(2048, ge=1, description="requests of one gateway that the engine runs at once")
    base_name: str = Field(
        "base", pattern=r"^[a-z][a-z0-9._-]{0,63}$", description="what the engine calls the base model"
    )
    training_url: str | None = Field(
        None, pattern=r"^https?://", description="base URL of the training service; unset = trainings are refused"
    )
    training_token: SecretStr | None = Field(None, description="bearer token of the training service")
