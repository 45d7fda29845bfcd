"""What the registry service can be told, read from the environment once."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator

from kit.settings import DatabaseSettings, MasterKeySettings, StorageSettings

_GIB = 1 << 30


class RegistrySettings(DatabaseSettings, StorageSettings, MasterKeySettings):
    """Everything that one registry process needs."""

    registry_token: SecretStr = Field(min_length=16, description="bearer token that every caller must present")
    registry_engine_token: SecretStr | None = Field(
        None, min_length=16, description="bearer token of engines, which may read versions and report themselves only"
    )
    engine_lease_seconds: float = Field(
        60.0, ge=5, le=86_400, description="an engine that was not heard for so long has lapsed: it serves no adapter"
    )
    registry_host: str = Field("127.0.0.1", description="address to listen on")
    registry_port: int = Field(8081, ge=1, le=65535, description="port to listen on")
    registry_upload_seconds: int = Field(3600, gt=0, le=604_800, description="life of a signed upload URL")
    registry_abandoned_seconds: int = Field(
        86_400, ge=0, description="a publish that nobody began again for so long is finished or rejected by reconcile"
    )
    registry_download_seconds: int = Field(600, gt=0, le=604_800, description="life of a signed download URL")
    registry_max_adapter_bytes: int = Field(
        2 * _GIB, gt=0, le=5 * _GIB, description="largest sum of a version's files; S3 copies at most 5 GiB at once"
    )
    registry_max_rank: int = Field(
        16, gt=0, le=512, description="largest LoRA rank that the engines hold: their LORRY_MAX_LORA_RANK"
    )
    registry_concurrent_completes: int = Field(
        8, gt=0, le=64, description="publishes verified at once; each takes up to 48 MiB of memory"
    )
    adapter_scan: Literal["none", "adaptersentry"] = Field(
        "none", description="a static scan of published weights, recorded beside their validation"
    )
    signing_private_key_file: Path | None = Field(
        None, description="PEM private key (P-256, P-384 or P-521) that versions are signed with; unset = unsigned"
    )
    registry_max_request_bytes: int = Field(4 << 20, gt=0, description="largest request body; files do not pass here")

    @model_validator(mode="after")
    def _tokens_differ(self) -> Self:
        if self.registry_engine_token == self.registry_token:
            raise ValueError(
                "LORRY_REGISTRY_ENGINE_TOKEN must not be LORRY_REGISTRY_TOKEN: every engine would be an operator"
            )
        return self
