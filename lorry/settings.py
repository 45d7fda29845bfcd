"""What the `lorry` command can be told; every part's own settings are derived from these."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr

from kit.names import Name
from kit.settings import DatabaseUrl, MasterKeySettings
from serving.extraction.settings import BaseEngineSettings
from training.policy import GateSettings


class LorrySettings(MasterKeySettings, GateSettings, BaseEngineSettings):
    """The single-machine composition.

    Each of `database_url`, `s3_endpoint_url` (or bare AWS credentials), `registry_url`, `engine_url` that is set
    names a part that runs elsewhere; lorry then uses that one and starts none of its own. Without `master_key_file`
    and `kms_key_id`, a master key file is made in the home.
    """

    home: Path = Field(Path("~/.lorry"), description="directory that holds all state of this machine")
    tenant: str = Field("default", description="tenant that the commands act for")
    actor: Name = Field("lorry", description="who the commands act for, by name, in the registry's audit trail")
    base_model: str = Field("smollm2-135m-instruct", description="name of a known base model, or a directory")
    gateway_port: int = Field(8080, ge=1, le=65535, description="port of the public HTTP API")
    port_base: int = Field(
        18300, ge=1024, le=55000, description="first of 20 ports for the internal parts; one more is 10,014 above it"
    )
    max_lora_rank: int = Field(16, ge=1, description="largest rank that registry and engine take; the engine's own too")
    device: Literal["cpu", "cuda"] = Field("cpu", description="where the engine and the trainer compute")
    threads: int = Field(2, ge=1, description="CPU threads of a training; part of what makes a run repeatable")
    datasets_kept: int = Field(
        5,
        ge=1,
        description="datasets of a user that stay on this machine, besides those that a version was trained on",
    )
    engine_start_seconds: float = Field(300.0, gt=0, description="how long the engine may take to start")

    database_url: DatabaseUrl | None = Field(
        None, description="PostgreSQL that runs elsewhere: postgresql+asyncpg://user:password@host:port/name"
    )
    s3_endpoint_url: str | None = Field(None, description="S3 that runs elsewhere; 'aws' for Amazon's own")
    s3_bucket: str = Field("lorry", description="bucket in the S3 that runs elsewhere")
    s3_region: str = Field("us-east-1", description="region of the S3 that runs elsewhere")
    s3_access_key_id: str | None = Field(None, description="unset = boto3's own credential chain")
    s3_secret_access_key: SecretStr | None = Field(None, description="unset = boto3's own credential chain")
    signing_private_key_file: Path | None = Field(None, description="PEM key the registry signs versions with")
    signing_public_key_file: Path | None = Field(
        None, description="PEM key that must have signed what an engine installs and `verify` reads"
    )
    registry_url: str | None = Field(None, description="registry that runs elsewhere; needs LORRY_REGISTRY_TOKEN")
    registry_token: SecretStr | None = Field(None, description="bearer token of that registry")
    registry_engine_token: SecretStr | None = Field(
        None, description="that registry's token for engines; unset = LORRY_REGISTRY_TOKEN"
    )
    extraction_webhook_key: SecretStr | None = Field(
        None, min_length=32, description="what tenants' webhook secrets are made of; unset = one of this home's own"
    )
    engine_url: str | None = Field(None, description="engine that runs elsewhere; needs LORRY_ENGINE_TOKEN")
    engine_token: SecretStr | None = Field(None, description="bearer token of that engine")
    training_url: str | None = Field(
        None, description="training service that the gateway asks; unset = the one of `lorry jobs serve` of this home"
    )
    training_token: SecretStr | None = Field(None, description="bearer token of that training service")
