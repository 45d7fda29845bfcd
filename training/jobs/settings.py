"""What a worker and the training service can be told."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr

from kit.names import Name
from kit.settings import DatabaseSettings
from kit.workers import host_name
from training.base_models import DEFAULT_BASE
from training.policy import GateSettings


class WorkerSettings(DatabaseSettings, GateSettings):
    """Everything that one training worker needs."""

    worker_id: Name = Field(
        default_factory=host_name,
        description="stable name of this worker, the same after every start, one for each worker; unset = host name",
    )
    training_base: str = Field(DEFAULT_BASE, description="base model that triggers train for: known name or directory")
    training_directory: Path = Field(
        Path("/var/lib/lorry/training"), description="where datasets, checkpoints and runs of jobs lie until they end"
    )
    training_bases_directory: Path | None = Field(
        None, description="prepared base models; unset = `bases` inside the training directory"
    )
    training_device: str | None = Field(None, description="cpu or cuda; unset = cuda when there is one")
    training_threads: int | None = Field(
        None, ge=1, description="CPU threads of a training that does not say; part of what makes it repeatable"
    )
    training_trains: bool = Field(True, description="false = only waits for question writers: no device needed")
    training_prepare_slots: int = Field(
        16, ge=0, le=1024, description="jobs whose questions one worker has written at once; most of that is waiting"
    )
    training_rivals: int = Field(3, ge=0, le=64, description="other users' live adapters that an evaluation is against")
    training_checkpoint_seconds: float = Field(
        60.0, ge=0, description="pause between two checkpoints of a training; 0 = one after each step"
    )
    training_redact: bool = Field(True, description="replace secrets and personal identifiers before anything else")
    registry_url: str = Field(description="where the registry is")
    registry_token: SecretStr = Field(description="the registry's operator token")
    training_lease_seconds: float = Field(
        60.0, ge=1, le=86_400, description="a worker that was not heard for so long is dead: others adopt its jobs"
    )
    training_poll_seconds: float = Field(
        0.5, gt=0, le=60, description="how often a worker looks for jobs, wishes and erased transcripts"
    )
    training_upkeep_seconds: float = Field(
        60.0, gt=0, description="how often triggers and campaigns are looked at, and leftovers removed"
    )
    training_attempts: int = Field(4, ge=1, le=100, description="failures that may pass, until a job is given up")
    training_crashes: int = Field(3, ge=1, le=100, description="workers that may die under a job, until it is given up")
    training_backoff_seconds: float = Field(30.0, gt=0, description="pause after a first failure; doubled each time")
    training_max_backoff_seconds: float = Field(3600.0, gt=0, description="longest pause between two attempts")
    training_failed_days: float = Field(
        7.0, ge=0, description="what a failed job had written and trained is kept so long for a retry, then removed"
    )
    training_history_days: float = Field(
        365.0, gt=0, description="ended jobs and their events are kept so long; costs are kept for good"
    )

    @property
    def bases_directory(self) -> Path:
        """Where prepared base models are."""
        return self.training_bases_directory or self.training_directory / "bases"

    @property
    def jobs_directory(self) -> Path:
        """One folder per job, named by its id."""
        return self.training_directory / "jobs"


class TrainingServiceSettings(DatabaseSettings):
    """Everything that one process of the training service needs."""

    training_token: SecretStr = Field(min_length=16, description="bearer token that every caller must present")
    training_host: str = Field("127.0.0.1", description="address to listen on")
    training_port: int = Field(8083, ge=1, le=65535, description="port to listen on")
    training_max_request_bytes: int = Field(1 << 20, gt=0, description="largest request body")
    registry_url: str | None = Field(
        None, description="where the registry is, which knows the base models that campaigns may be for"
    )
    registry_token: SecretStr | None = Field(None, description="the registry's operator token")
    training_events_seconds: float = Field(1.0, gt=0, le=60, description="how often an event stream looks for news")
