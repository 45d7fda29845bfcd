"""What a worker of batch extractions can be told, and what everybody is told who submits or reads batches."""

from __future__ import annotations

from pydantic import Field, SecretStr

from kit.names import Name
from kit.settings import DatabaseSettings, StorageSettings
from kit.workers import host_name
from serving.extraction.settings import BaseEngineSettings, ExtractionSettings


class BatchSettings(StorageSettings):
    """What submitting batches and reading their results takes: limits, webhooks, and where results are."""

    extraction_max_batches: int = Field(
        20, ge=1, description="unfinished batches that a tenant may have, unless `lorry extractions limits` says else"
    )
    extraction_max_users: int = Field(
        10_000, ge=1, le=1_000_000, description="users of one batch, unless `lorry extractions limits` says else"
    )
    extraction_webhook_key: SecretStr | None = Field(
        None, min_length=32, description="what tenants' webhook secrets are made of, the same everywhere; unset = none"
    )
    extraction_webhook_private: bool = Field(
        False, description="true lets webhooks reach private and loopback addresses, and plain http: for tests"
    )


class ExtractionWorkerSettings(DatabaseSettings, BatchSettings, ExtractionSettings, BaseEngineSettings):
    """Everything that one worker needs."""

    worker_id: Name = Field(
        default_factory=host_name,
        description="stable name of this worker, the same after every start, one for each worker; unset = host name",
    )
    extraction_worker_host: str = Field("127.0.0.1", description="address of health and metrics")
    extraction_worker_port: int = Field(8084, ge=0, le=65535, description="port of health and metrics; 0 = any")
    extraction_users_at_once: int = Field(
        4, ge=1, le=1024, description="users in hand at once; about the engine's slots for batch work, and one more"
    )
    extraction_prefetch: int = Field(2, ge=0, le=64, description="users ahead whose adapters the engine is told of")
    extraction_lease_seconds: float = Field(
        30.0, ge=1, le=86_400, description="a worker that was not heard for so long is dead: others adopt its users"
    )
    extraction_poll_seconds: float = Field(
        0.5, gt=0, le=60, description="how often a worker looks for batches, cancellations and due webhooks"
    )
    extraction_upkeep_seconds: float = Field(60.0, gt=0, description="how often old batches are swept up")
    extraction_attempts: int = Field(6, ge=1, le=100, description="failures of a user that may pass, until given up")
    extraction_crashes: int = Field(3, ge=1, le=100, description="workers that may die under a user, until given up")
    extraction_backoff_seconds: float = Field(5.0, gt=0, description="pause after a first failure; doubled each time")
    extraction_max_backoff_seconds: float = Field(600.0, gt=0, description="longest pause between two attempts")
    extraction_user_seconds: float = Field(1800.0, gt=0, description="longest time that one user may be in hand")
    extraction_drain_seconds: float = Field(
        30.0, ge=0, description="how long users in hand may take when the worker is told to stop"
    )
    extraction_results_days: float = Field(
        30.0, gt=0, description="ended batches and their results are kept so long; profiles are kept apart from them"
    )
    extraction_webhook_attempts: int = Field(12, ge=1, le=100, description="how often a webhook is tried")
    extraction_webhook_timeout_seconds: float = Field(10.0, gt=0, le=120, description="how long one try may take")
    registry_url: str = Field(pattern=r"^https?://", description="base URL of the registry")
    registry_token: SecretStr = Field(description="bearer token of the registry")
    engine_url: str = Field(pattern=r"^https?://", description="base URL of the engine, or of what balances several")
    engine_token: SecretStr = Field(description="bearer token of the engine")
    engine_timeout_seconds: float = Field(900.0, gt=0, description="longest silence of the engine: batch work queues")
