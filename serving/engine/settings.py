"""What an engine can be told.

The launcher writes these settings into vLLM's environment (`EngineSettings.to_environment`), and
every process of vLLM reads them back once, through `process_settings`.
"""

from __future__ import annotations

import socket
from functools import cache
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from kit.names import Name
from kit.settings import Settings
from serving.engine.pool.limits import Limits

_CPU_STEP_TOKENS = 256  # vLLM's 2048 keep a core busy for many seconds
_CPU_LIVE_STEP_TOKENS, _CUDA_LIVE_STEP_TOKENS = 64, 512
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


class EngineSettings(Settings):
    """One engine: a base model, its adapter slots, and where adapters come from."""

    base_directory: Path = Field(
        description="directory of the base model, as transformers saves it (`lorry` makes it of LORRY_BASE_MODEL)"
    )
    base_name: str = Field("base", pattern=r"^[a-z][a-z0-9._-]{0,63}$", description="what requests call the base model")

    engine_host: str = Field("127.0.0.1", description="address to listen on")
    engine_port: int = Field(8100, ge=1, le=65535, description="port to listen on")
    engine_token: SecretStr = Field(description="bearer token of every route but health and metrics")
    engine_device: Literal["cpu", "cuda"] = Field("cpu", description="what computes (`lorry` makes it of LORRY_DEVICE)")
    engine_dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto = float32 on a CPU, the base model's own on CUDA"
    )
    engine_threads: int = Field(
        1, ge=1, description="compute threads of a CPU engine; more than the free cores is slower"
    )
    cpu_product: Literal["grouped", "stock"] = Field(
        "grouped",
        description="how a CPU engine computes adapters: grouped = one product an adapter; stock = vLLM's copy a token",
    )
    engine_arguments: str = Field("", description="further vLLM arguments, as in a shell; those Lorry sets are refused")
    untested_vllm: bool = Field(
        False, description="start on a vLLM that Lorry was not tested with, at your own risk, rather than refuse it"
    )
    attention_backend: str | None = Field(None, description="vLLM's attention backend; unset = vLLM chooses")
    tensor_parallel_size: int = Field(1, ge=1, description="devices that share one copy of the model")

    max_loras: int = Field(4, ge=1, description="adapter slots: distinct adapters in one batch")
    max_cpu_loras: int = Field(32, ge=1, description="adapters kept in host memory; at least max_loras")
    host_adapter_gib: float = Field(8.0, gt=0, description="host memory for adapters, in GiB, of all workers together")
    live_slots: int | None = Field(
        None,
        ge=0,
        description="adapter slots that batch never holds, less than max_loras; unset = 1, or 0 of a single slot",
    )
    live_seats: int | None = Field(
        None, ge=0, description="of max_num_seqs, those that batch requests never take, not all; unset = an eighth"
    )
    engine_queue: int = Field(1024, ge=1, description="requests of each class that may wait; more are told to retry")
    live_deadline_seconds: float = Field(60.0, gt=0, description="how long a live request waits for its turn")
    batch_deadline_seconds: float = Field(600.0, gt=0, description="how long a batch request waits for its turn")
    engine_stop_seconds: float = Field(
        10.0,
        ge=0,
        le=10,  # whoever tells an engine to stop kills it after 15 seconds or more
        description="how long requests that run may go on once the engine is told to stop; what waits is refused then,"
        " and what takes longer needs a drain before",
    )
    max_lora_rank: int = Field(16, description=f"largest rank served: one of {', '.join(map(str, LORA_RANKS))}")
    max_model_len: int = Field(2048, ge=16, description="tokens of prompt and answer together")
    max_num_seqs: int = Field(64, ge=1, description="requests that run at once")
    step_tokens: int | None = Field(
        None,
        ge=1,
        description="tokens of prompts and answers in one step of the engine, at least max_num_seqs: newcomers wait for"
        " its end; unset = 256 on a CPU, or max_num_seqs if that is more, and vLLM's own on CUDA",
    )
    live_step_tokens: int | None = Field(
        None,
        ge=1,
        description="of batch prompts, tokens in one step while live requests come; more make those wait longer for"
        " their first token, fewer slow batch work beside them; unset = 64 on a CPU and 512 on CUDA",
    )
    kv_cache_gib: int = Field(2, ge=1, description="memory for the KV cache of a CPU engine, in GiB")
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1, description="share of a GPU's memory that vLLM may take")

    signing_public_key_file: Path | None = Field(
        None, description="PEM public key that must have signed every version this engine installs; unset = any"
    )
    registry_url: str = Field(pattern=r"^https?://", description="base URL of the registry")
    registry_engine_token: SecretStr = Field(description="the registry's bearer token for engines")
    registry_timeout_seconds: float = Field(
        5.0,
        gt=0,
        description="how long the registry may be silent, in all, before an adapter is refused; and the object store,"
        " each of four times",
    )
    engine_id: Name | None = Field(
        None, description="name in the engine directory, of this engine alone; unset = <host name>:<port>"
    )
    engine_address: str | None = Field(
        None, description="URL at which others reach this engine, for the directory; unset = host and port"
    )
    heartbeat_seconds: float = Field(
        2.0, gt=0, le=30, description="how often the engine asks what it must not serve: bounds a suspension"
    )
    engine_lease_seconds: float = Field(
        60.0, ge=5, le=86_400, description="without the registry for so long, the engine serves no adapter"
    )
    adapter_cache_directory: Path = Field(description="where sealed adapters are installed; survives restarts")
    adapter_cache_gib: float = Field(64.0, gt=0, description="what the sealed adapters on disk may take, in GiB")
    warm_start: bool = Field(True, description="bring back the adapters most used before, once the engine restarts")
    adapter_lock_seconds: float = Field(60.0, gt=0, description="how long to wait for another process's installation")
    refusal_ttl_seconds: float = Field(
        2.0, ge=0, description="how long a refused adapter is refused again without asking the registry"
    )

    @field_validator("engine_token", "registry_engine_token")
    @classmethod
    def _usable_token(cls, value: SecretStr) -> SecretStr:
        token = value.get_secret_value()
        if len(token) < 8 or not token.isascii() or not token.isprintable() or " " in token:
            raise ValueError("must be at least 8 printable ASCII characters without spaces")
        return value

    @field_validator("max_lora_rank")
    @classmethod
    def _known_rank(cls, value: int) -> int:
        if value not in LORA_RANKS:
            raise ValueError(f"must be one of {', '.join(map(str, LORA_RANKS))}")
        return value

    @model_validator(mode="after")
    def _room_for_slots(self) -> Self:
        if self.max_cpu_loras < self.max_loras:
            raise ValueError(f"max_cpu_loras ({self.max_cpu_loras}) must be at least max_loras ({self.max_loras})")
        return self

    @model_validator(mode="after")
    def _something_for_batch(self) -> Self:
        bounds = (("live_slots", self.live_slots, "max_loras", self.max_loras),
                  ("live_seats", self.live_seats, "max_num_seqs", self.max_num_seqs))  # fmt: skip
        for name, kept, of, total in bounds:
            if kept is not None and kept >= total:
                raise ValueError(f"{name} ({kept}) must be less than {of} ({total}), or batch requests never run")
        return self

    @model_validator(mode="after")
    def _step_for_every_seat(self) -> Self:
        if self.step_tokens is not None and self.step_tokens < self.max_num_seqs:
            raise ValueError(f"step_tokens ({self.step_tokens}) must be at least max_num_seqs ({self.max_num_seqs})")
        return self

    @model_validator(mode="after")
    def _lease_outlasts_heartbeats(self) -> Self:
        if self.engine_lease_seconds < 2 * self.heartbeat_seconds:
            raise ValueError(
                f"engine_lease_seconds ({self.engine_lease_seconds:g}) must be at least twice heartbeat_seconds"
                f" ({self.heartbeat_seconds:g})"
            )
        return self

    @property
    def most_step_tokens(self) -> int | None:
        """Tokens in one step; None = vLLM's own choice."""
        if self.step_tokens is None and self.engine_device == "cpu":
            return max(_CPU_STEP_TOKENS, self.max_num_seqs)
        return self.step_tokens

    @property
    def batch_prompt_tokens(self) -> int:
        """Tokens of batch prompts in one step while live requests come."""
        if self.live_step_tokens is None:
            return _CPU_LIVE_STEP_TOKENS if self.engine_device == "cpu" else _CUDA_LIVE_STEP_TOKENS
        return self.live_step_tokens

    @property
    def directory_id(self) -> str:
        """This engine's name in the directory."""
        return self.engine_id or f"{socket.gethostname()}:{self.engine_port}"

    @property
    def directory_address(self) -> str:
        """Where others reach this engine."""
        return self.engine_address or f"http://{self.engine_host}:{self.engine_port}"

    def facts(self) -> dict[str, str | int]:
        """Return what the directory shows of this engine."""
        return {
            "device": self.engine_device,
            "max_loras": self.max_loras,
            "max_cpu_loras": self.max_cpu_loras,
            "max_lora_rank": self.max_lora_rank,
            "max_model_len": self.max_model_len,
            "tensor_parallel_size": self.tensor_parallel_size,
        }

    def limits(self) -> Limits:
        """Return what requests may use at once."""
        live_slots = min(1, self.max_loras - 1) if self.live_slots is None else self.live_slots
        live_seats = self.max_num_seqs // 8 if self.live_seats is None else self.live_seats
        return Limits(
            slots=self.max_loras,
            live_slots=live_slots,
            seats=self.max_num_seqs,
            live_seats=live_seats,
            queue=self.engine_queue,
        )

    def to_environment(self) -> dict[str, str]:
        """Return the variables from which `EngineSettings()` rebuilds these settings, secrets included."""
        values = ((name, value) for name, value in self if value is not None)
        return {f"LORRY_{name.upper()}": _plain(value) for name, value in values}


@cache
def process_settings() -> EngineSettings:
    """Return this vLLM process's settings, read from its environment the first time.

    Raises:
        pydantic.ValidationError: when the process was not started by `serving.engine`.
    """
    return EngineSettings()


def _plain(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)
