"""Which parts run here, with which commands and environment: settings → parts.

The order of `PART_NAMES` is the order of dependency: a later part needs the earlier ones.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx
from pydantic import SecretStr

from kit.master_keys import KeyFile
from kit.settings import DatabaseSettings, MasterKeySettings, StorageSettings
from kit.tls import authorities
from lorry.home import Home
from lorry.local.part import Part
from lorry.local.postgres import database_url, prepare_postgres
from lorry.local.seaweed import ACCESS_KEY_ID, SeaweedPorts, prepare_seaweed
from lorry.settings import LorrySettings

PART_NAMES = ("postgres", "seaweedfs", "registry", "engine", "gateway", "extraction")
_DATABASE = "lorry"
_AWS = "aws"
_DRAIN_SECONDS = 5  # less than a part has to stop; who is in hand then is taken up again at the next start


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Where every part of one home is, or would be if it were started."""

    settings: LorrySettings
    home: Home

    @property
    def local_parts(self) -> tuple[str, ...]:
        """The parts that run on this machine, in the order in which they start."""
        elsewhere = {
            "postgres": self.settings.database_url,
            "seaweedfs": self.settings.s3_endpoint_url,
            "registry": self.settings.registry_url,
            "engine": self.settings.engine_url,
            "gateway": None,
            "extraction": None,
        }
        return tuple(name for name in PART_NAMES if not elsewhere[name])

    @property
    def database(self) -> DatabaseSettings:
        """Where PostgreSQL is."""
        given = self.settings.database_url
        return DatabaseSettings(database_url=given or database_url(self.home.path / "postgres", name=_DATABASE))

    @property
    def storage(self) -> StorageSettings:
        """Where the object store is."""
        settings = self.settings
        if settings.s3_endpoint_url:
            return StorageSettings(
                s3_bucket=settings.s3_bucket,
                s3_endpoint_url=None if settings.s3_endpoint_url == _AWS else settings.s3_endpoint_url,
                s3_region=settings.s3_region,
                s3_access_key_id=settings.s3_access_key_id,
                s3_secret_access_key=settings.s3_secret_access_key,
            )
        return StorageSettings(
            s3_bucket=settings.s3_bucket,
            s3_endpoint_url=f"http://127.0.0.1:{self.seaweed_ports.s3}",
            s3_access_key_id=ACCESS_KEY_ID,
            s3_secret_access_key=SecretStr(self.home.secret("s3")),
        )

    @property
    def master_keys(self) -> MasterKeySettings:
        """Where the registry's master keys are; without a setting, in a file of this home that is made here and now."""
        settings = self.settings
        file = settings.master_key_file
        if not file and not settings.kms_key_id:
            file = self.home.folder("secrets") / "master-keys.json"
            KeyFile.create(file)
        given = settings.model_dump(include=set(MasterKeySettings.model_fields))
        return MasterKeySettings.model_validate({**given, "master_key_file": file})

    @property
    def seaweed_ports(self) -> SeaweedPorts:
        """Ports of the local SeaweedFS."""
        return SeaweedPorts.from_base(self.settings.port_base + 10)

    @property
    def registry_url(self) -> str:
        """Base URL of the registry."""
        return self.settings.registry_url or f"http://127.0.0.1:{self.settings.port_base}"

    @property
    def registry_token(self) -> str:
        """Bearer token of the registry."""
        given = self.settings.registry_token
        return given.get_secret_value() if given else self.home.secret("registry-token")

    @property
    def registry_engine_token(self) -> str:
        """Bearer token with which an engine reads versions and reports itself, and can do no more."""
        given = self.settings.registry_engine_token
        if given is None and self.settings.registry_url:
            return self.registry_token
        return given.get_secret_value() if given else self.home.secret("registry-engine-token")

    @property
    def engine_id(self) -> str:
        """Name of this home's engine in the directory, the same after every start."""
        return f"local-{self.home.secret('engine-id')[:8]}"

    @property
    def engine_url(self) -> str:
        """Base URL of the engine."""
        return self.settings.engine_url or f"http://127.0.0.1:{self.settings.port_base + 1}"

    @property
    def engine_token(self) -> str:
        """Bearer token of the engine."""
        given = self.settings.engine_token
        return given.get_secret_value() if given else self.home.secret("engine-token")

    @property
    def training_port(self) -> int:
        """Where `lorry jobs serve` listens unless it is told otherwise."""
        return self.settings.port_base + 3

    @property
    def training_url(self) -> str:
        """Base URL of the training service; of this home's, which runs when somebody wants it."""
        return self.settings.training_url or f"http://127.0.0.1:{self.training_port}"

    @property
    def training_token(self) -> str:
        """Bearer token of the training service."""
        given = self.settings.training_token if self.settings.training_url else None
        return given.get_secret_value() if given else self.home.secret("training-token")

    @property
    def webhook_key(self) -> str:
        """What tenants' webhook secrets are made of."""
        given = self.settings.extraction_webhook_key
        return given.get_secret_value() if given else self.home.secret("extraction-webhook-key")

    @property
    def gateway_url(self) -> str:
        """Base URL of the public API on this machine."""
        return f"http://127.0.0.1:{self.settings.gateway_port}"

    def part(self, name: str, *, base_directory: Path) -> Part:
        """Return how to run one part; first use of `postgres` initialises its directory (about a second)."""
        match name:
            case "postgres":
                return prepare_postgres(self.home.folder("postgres"), log_path=self._log("postgres"))
            case "seaweedfs":
                return self._seaweed()
            case "registry":
                return self._registry()
            case "engine":
                return self._engine(base_directory)
            case "gateway":
                return self._gateway()
            case "extraction":
                return self._extraction()
            case _:
                raise KeyError(name)

    def _seaweed(self) -> Part:
        return prepare_seaweed(
            self.home.folder("seaweedfs"),
            ports=self.seaweed_ports,
            secret_key=self.home.secret("s3"),
            sse_key=self.home.secret("s3-sse"),
            log_path=self._log("seaweedfs"),
        )

    def _registry(self) -> Part:
        port = self.settings.port_base
        return Part(
            name="registry",
            argv=(sys.executable, "-m", "registry"),
            environment={
                **self._store_environment(),
                **self._master_key_environment(),
                **self._signing_environment("private"),
                "LORRY_REGISTRY_TOKEN": self.registry_token,
                "LORRY_REGISTRY_ENGINE_TOKEN": self.registry_engine_token,
                "LORRY_REGISTRY_HOST": "127.0.0.1",
                "LORRY_REGISTRY_PORT": str(port),
                "LORRY_REGISTRY_MAX_RANK": str(self.settings.max_lora_rank),
            },
            log_path=self._log("registry"),
            address=self.registry_url,
            ports=(port,),
            is_healthy=lambda: _answers_ok(f"{self.registry_url}/healthz"),
        )

    def _engine(self, base_directory: Path) -> Part:
        port = self.settings.port_base + 1
        return Part(
            name="engine",
            argv=(sys.executable, "-m", "serving.engine"),
            environment={
                **self._signing_environment("public"),
                "LORRY_REGISTRY_URL": self.registry_url,
                "LORRY_REGISTRY_ENGINE_TOKEN": self.registry_engine_token,
                "LORRY_ENGINE_TOKEN": self.engine_token,
                "LORRY_ENGINE_ID": self.engine_id,
                "LORRY_BASE_DIRECTORY": str(base_directory),
                "LORRY_ENGINE_HOST": "127.0.0.1",
                "LORRY_ENGINE_PORT": str(port),
                "LORRY_ENGINE_DEVICE": self.settings.device,
                "LORRY_MAX_LORA_RANK": str(self.settings.max_lora_rank),
                "LORRY_ADAPTER_CACHE_DIRECTORY": str(self.home.folder("cache", "adapters")),
            },
            log_path=self._log("engine"),
            address=self.engine_url,
            ports=(port,),
            is_healthy=lambda: _answers_ok(f"{self.engine_url}/lorry/ready", token=self.engine_token),
            start_timeout_seconds=self.settings.engine_start_seconds,
        )

    def _gateway(self) -> Part:
        port = self.settings.gateway_port
        return Part(
            name="gateway",
            argv=(sys.executable, "-m", "serving.gateway"),
            environment={
                **self._store_environment(),
                **self._service_environment(),
                **self._webhook_environment(),
                "LORRY_TRAINING_URL": self.training_url,
                "LORRY_TRAINING_TOKEN": self.training_token,
                "LORRY_GATEWAY_HOST": "127.0.0.1",
                "LORRY_GATEWAY_PORT": str(port),
                "LORRY_GATEWAY_NOTICE_SECONDS": "0",  # nobody balances load before the one gateway of a machine
            },
            log_path=self._log("gateway"),
            address=self.gateway_url,
            ports=(port,),
            is_healthy=lambda: _answers_ok(f"{self.gateway_url}/healthz"),
        )

    def _extraction(self) -> Part:
        port = self.settings.port_base + 2
        address = f"http://127.0.0.1:{port}"
        return Part(
            name="extraction",
            argv=(sys.executable, "-m", "serving.jobs"),
            environment={
                **self._store_environment(),
                **self._service_environment(),
                **self._webhook_environment(),
                "LORRY_WORKER_ID": f"local-{self.engine_id.removeprefix('local-')}",
                "LORRY_EXTRACTION_WORKER_HOST": "127.0.0.1",
                "LORRY_EXTRACTION_WORKER_PORT": str(port),
                "LORRY_EXTRACTION_DRAIN_SECONDS": str(_DRAIN_SECONDS),
            },
            log_path=self._log("extraction"),
            address=address,
            ports=(port,),
            is_healthy=lambda: _answers_ok(f"{address}/healthz"),
        )

    def _store_environment(self) -> dict[str, str]:
        storage = self.storage
        secret = storage.s3_secret_access_key
        values = {
            "LORRY_DATABASE_URL": self.database.database_url,
            "LORRY_S3_BUCKET": storage.s3_bucket,
            "LORRY_S3_ENDPOINT_URL": storage.s3_endpoint_url,
            "LORRY_S3_REGION": storage.s3_region,
            "LORRY_S3_ACCESS_KEY_ID": storage.s3_access_key_id,
            "LORRY_S3_SECRET_ACCESS_KEY": secret.get_secret_value() if secret else None,
        }
        return {name: value for name, value in values.items() if value is not None}

    def _master_key_environment(self) -> dict[str, str]:
        keys = self.master_keys
        secret = keys.kms_secret_access_key
        values = {
            "LORRY_MASTER_KEY_FILE": str(keys.master_key_file) if keys.master_key_file else None,
            "LORRY_KMS_KEY_ID": keys.kms_key_id,
            "LORRY_KMS_ENDPOINT_URL": keys.kms_endpoint_url,
            "LORRY_KMS_REGION": keys.kms_region,
            "LORRY_KMS_ACCESS_KEY_ID": keys.kms_access_key_id,
            "LORRY_KMS_SECRET_ACCESS_KEY": secret.get_secret_value() if secret else None,
        }
        return {name: value for name, value in values.items() if value is not None}

    def _signing_environment(self, which: Literal["private", "public"]) -> dict[str, str]:
        name = f"signing_{which}_key_file"
        path = getattr(self.settings, name)
        return {f"LORRY_{name.upper()}": str(path.absolute())} if path else {}

    def _service_environment(self) -> dict[str, str]:
        return {
            "LORRY_REGISTRY_URL": self.registry_url,
            "LORRY_REGISTRY_TOKEN": self.registry_token,
            "LORRY_ENGINE_URL": self.engine_url,
            "LORRY_ENGINE_TOKEN": self.engine_token,
        }

    def _webhook_environment(self) -> dict[str, str]:
        return {"LORRY_EXTRACTION_WEBHOOK_KEY": self.webhook_key}

    def _log(self, name: str) -> Path:
        return self.home.logs / f"{name}.log"


async def _answers_ok(url: str, *, token: str = "") -> bool:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        async with httpx.AsyncClient(timeout=5, verify=authorities(), trust_env=False) as client:
            return (await client.get(url, headers=headers)).status_code == 200
    except httpx.HTTPError:
        return False
