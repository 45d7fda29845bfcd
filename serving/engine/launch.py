"""How vLLM is started: its exact arguments and environment, and what is refused before it starts."""

from __future__ import annotations

import os
import shlex
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from serving.engine.settings import EngineSettings
from serving.engine.vllm_version import check_vllm, installed_versions
from serving.errors import EngineMisconfigured

SERVER_MODULE = "vllm.entrypoints.launchers.api_server.entry"
GENERAL_PLUGIN = "lorry"
ENDPOINT_PLUGIN = "lorry_routes"
GUARD = "serving.engine.guard.Guard"
DOOR = "serving.engine.door.Door"
PRIORITY = "serving.engine.priority.Priority"
WORKER_EXTENSION = "serving.engine.worker.extension.LorryWorker"
TARGET_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The layers an adapter may touch. Naming them keeps vLLM from wrapping lm_head, which kills a CPU
engine as soon as it batches requests for prompt log-probabilities."""

_REFUSED_ARGUMENTS = {
    "--api-server-count": "adapters are known to one API server only",
    "--data-parallel": "an idle rank's dummy batches wipe its adapters",
    "--headless": "the engine needs its API server",
    "--pipeline-parallel-size": "adapters are prepared whole in every worker",
    "--nnodes": "workers tell the API server over a socket of this machine",
    "--node-rank": "workers tell the API server over a socket of this machine",
    "--worker-cls": "Lorry's own hooks live in vLLM's workers",
    "--kv-transfer-config": "cached blocks that leave the engine outlive an erasure",
    "--kv-offloading-size": "cached blocks that leave the engine outlive an erasure",
    "--kv-offloading-backend": "cached blocks that leave the engine outlive an erasure",
    "--ec-transfer-config": "what is cached outside the engine outlives an erasure",
    "--distributed-executor-backend": "workers read verified adapters from this machine's memory",
    "--kv-events-config": "events hold requests, which are people's words",
    "--grpc": "the internal token guards HTTP only",
    "--uds": "the engine listens on TCP",
    "--lora-modules": "adapters come from the registry",
    "--default-mm-loras": "adapters come from the registry",
    "--enable-log-requests": "requests are people's words",
    "--enable-log-outputs": "answers are about people",
    "--log-error-stack": "stacks hold requests",
    "--api-key": "set LORRY_ENGINE_TOKEN",
    "--root-path": "the guard knows routes by their whole path",
    "--enable-prompt-embeds": "embeddings of a wrong shape end the engine for everybody",
    "--config": "a file of arguments cannot be checked here",
    "--worker-extension-cls": "Lorry's own hooks live in the workers",
}
_FOREIGN_VARIABLES = frozenset(
    {
        "VLLM_SKIP_MODEL_NAME_VALIDATION",  # would answer unknown names with the base, silently
        "VLLM_SERVER_DEV_MODE",  # opens routes that run code
        "VLLM_DEBUG_LOG_API_SERVER_RESPONSE",  # logs answers
        "VLLM_REQUEST_BODY_LOG_LEVEL",  # logs requests
        "VLLM_USE_RUST_FRONTEND",  # knows neither resolvers nor middleware
        "VLLM_RUST_FRONTEND_PATH",
        "VLLM_LORA_RESOLVER_CACHE_DIR",
        "VLLM_API_KEY",
        "VLLM_RAISE_ON_LOGIT_NANS",  # one adapter's answer would end the engine for everybody
        "CUSTOM_FASTAPI_MIDDLEWARE_THROTTLE",  # code in front of the guard
        "CUSTOM_FASTAPI_MIDDLEWARE_PRE_POST_PROCESS",  # code between the door and vLLM, which sees requests and answers
        "CUSTOM_PRE_PROCESS",
        "CUSTOM_POST_PROCESS",
        "CUSTOM_FASTAPI_PING_HANDLER",
        "CUSTOM_FASTAPI_INVOCATION_HANDLER",
        "CUSTOM_SCRIPT_FILENAME",
        "PROMETHEUS_MULTIPROC_DIR",  # one API server: metrics live in memory
        "VLLM_DP_SIZE",  # data parallelism by the back door
        "VLLM_DP_RANK",
        "VLLM_DP_RANK_LOCAL",
        "VLLM_DP_MASTER_IP",
        "VLLM_DP_MASTER_PORT",
    }
)


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One command line and the whole environment to run it in."""

    arguments: tuple[str, ...]
    environment: dict[str, str]


def plan_launch(settings: EngineSettings, *, inherited: Mapping[str, str]) -> Launch:
    """Return how to start vLLM for `settings` in a process whose environment would be `inherited`.

    Raises:
        EngineMisconfigured: naming an argument that Lorry sets itself or cannot work with.
    """
    return Launch(arguments=_arguments(settings), environment=_environment(settings, inherited))


def check_host(settings: EngineSettings) -> None:
    """Make the adapter cache's directory, and refuse what would only fail minutes later inside vLLM, or worse.

    Raises:
        EngineMisconfigured: naming the setting, when vLLM is one that Lorry was not made for, the base model is not
            there, the cache cannot be written or the port is taken.
    """
    check_vllm(installed_versions(), untested=settings.untested_vllm)
    base = settings.base_directory
    for pattern in ("config.json", "*.safetensors", "tokenizer.json"):
        if not any(base.glob(pattern)):
            raise EngineMisconfigured(f"{base} has no {pattern}: not a saved base model", field="LORRY_BASE_DIRECTORY")
    _check_writable(settings.adapter_cache_directory)
    _check_port_free(settings.engine_host, settings.engine_port)


def _arguments(settings: EngineSettings) -> tuple[str, ...]:
    cpu = settings.engine_device == "cpu"
    dtype = "float32" if cpu and settings.engine_dtype == "auto" else settings.engine_dtype
    command = [sys.executable, "-m", SERVER_MODULE]
    command += ["--model", str(settings.base_directory), "--served-model-name", settings.base_name]
    command += ["--host", settings.engine_host, "--port", str(settings.engine_port)]
    command += ["--dtype", dtype, "--max-model-len", str(settings.max_model_len)]
    command += ["--max-num-seqs", str(settings.max_num_seqs)]
    if settings.most_step_tokens is not None:
        command += ["--max-num-batched-tokens", str(settings.most_step_tokens)]
    command += ["--tensor-parallel-size", str(settings.tensor_parallel_size)]
    command += ["--enable-lora", "--max-loras", str(settings.max_loras)]
    command += ["--max-cpu-loras", str(settings.max_cpu_loras), "--max-lora-rank", str(settings.max_lora_rank)]
    command += ["--lora-target-modules", *TARGET_MODULES]
    command += ["--worker-extension-cls", WORKER_EXTENSION]
    command += ["--scheduling-policy", "priority"]
    command += ["--middleware", PRIORITY, "--middleware", DOOR, "--middleware", GUARD]  # the last is the outermost
    command += ["--disable-uvicorn-access-log", "--disable-fastapi-docs"]
    command += ["--enforce-eager"] if cpu else ["--gpu-memory-utilization", str(settings.gpu_memory_utilization)]
    if settings.attention_backend:
        command += ["--attention-backend", settings.attention_backend]
    own = {argument for argument in command if argument.startswith("--")}
    return (*command, *_further_arguments(settings, own=own))


def _further_arguments(settings: EngineSettings, *, own: set[str]) -> list[str]:
    try:
        further = shlex.split(settings.engine_arguments)
    except ValueError as exc:
        raise EngineMisconfigured(f"LORRY_ENGINE_ARGUMENTS: {exc}", field="LORRY_ENGINE_ARGUMENTS") from exc
    for argument in further:
        _check_argument(argument, own=own)
    return further


def _check_argument(argument: str, *, own: set[str]) -> None:
    """Refuse what we set or cannot serve.

    vLLM's parser (vllm/utils/argparse_utils.py) takes ``_`` for ``-``, abbreviations, ``--no-…``, since 0.33 also
    ``--disable-…`` for the contrary of ``--enable-…`` and the other way round, and one key of a JSON argument as
    ``--argument.key`` or, to append to a list, ``--argument.key+``.
    """
    flag = argument.split("=", 1)[0].split(".", 1)[0].replace("_", "-").rstrip("+")
    if not flag.startswith("-") or flag.lstrip("-").isdecimal():
        return
    long = flag.replace("--no-", "--", 1)
    reason = next((why for known, why in _REFUSED_ARGUMENTS.items() if _may_mean(long, known)), None)
    if not flag.startswith("--"):
        reason = "write the long form, so that it can be checked"
    elif long.startswith("--data-parallel-"):
        reason = _REFUSED_ARGUMENTS["--data-parallel"]
    elif reason is None and any(_may_mean(long, mine) for mine in own):
        reason = "Lorry sets it"
    if reason is not None:
        raise EngineMisconfigured(f"{argument} is refused: {reason}", field="LORRY_ENGINE_ARGUMENTS")


def _may_mean(flag: str, known: str) -> bool:
    """Say whether vLLM could take `flag`, which may be abbreviated, for `known` or its contrary."""
    contraries = known.replace("--enable-", "--disable-", 1), known.replace("--disable-", "--enable-", 1)
    return any(name.startswith(flag) for name in (known, *contraries))


def _environment(settings: EngineSettings, inherited: Mapping[str, str]) -> dict[str, str]:
    environment = {name: value for name, value in inherited.items() if name not in _FOREIGN_VARIABLES}
    environment |= settings.to_environment()
    environment |= {
        "VLLM_PLUGINS": f"{GENERAL_PLUGIN},{ENDPOINT_PLUGIN}",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "SAGEMAKER_MODEL_PATH": os.devnull,  # vLLM would run the model.py that lies there
        "DO_NOT_TRACK": "1",
        "VLLM_LOGGING_LEVEL": settings.log_level.upper(),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if settings.engine_device == "cpu":
        environment |= {
            "OMP_NUM_THREADS": str(settings.engine_threads),
            "VLLM_CPU_KVCACHE_SPACE": str(settings.kv_cache_gib),
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        }
    return environment


def _check_writable(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = directory / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as exc:
        raise EngineMisconfigured(
            f"{directory} cannot be written: {exc.strerror}", field="LORRY_ADAPTER_CACHE_DIRECTORY"
        ) from exc


def _check_port_free(host: str, port: int) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as exc:
        raise EngineMisconfigured(f"cannot listen on {host}:{port}: {exc.strerror}", field="LORRY_ENGINE_PORT") from exc
