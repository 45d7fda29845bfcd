from __future__ import annotations

import socket
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from serving.engine.launch import TARGET_MODULES, check_host, plan_launch
from serving.engine.settings import EngineSettings
from serving.errors import EngineMisconfigured
from tests.support.ports import free_port_block


def make(**changes: Any) -> EngineSettings:
    values: dict[str, Any] = {
        "base_directory": "/models/base",
        "engine_token": "engine-token",
        "registry_url": "http://127.0.0.1:8200",
        "registry_engine_token": "registry-token",
        "adapter_cache_directory": "/cache",
    }
    return EngineSettings(**(values | changes))


def value_of(arguments: tuple[str, ...], flag: str) -> str:
    return arguments[arguments.index(flag) + 1]


def test_only_the_seven_linear_layers_are_wrapped() -> None:
    arguments = plan_launch(make(), inherited={}).arguments
    first = arguments.index("--lora-target-modules") + 1

    assert arguments[first : first + 7] == TARGET_MODULES
    assert arguments[first + 7].startswith("--")


def test_a_cpu_engine_computes_eagerly_in_float32_on_the_threads_it_was_given() -> None:
    launch = plan_launch(make(engine_threads=3, kv_cache_gib=5), inherited={})

    assert value_of(launch.arguments, "--dtype") == "float32"
    assert "--enforce-eager" in launch.arguments
    assert launch.environment["OMP_NUM_THREADS"] == "3"
    assert launch.environment["VLLM_CPU_KVCACHE_SPACE"] == "5"
    assert launch.environment["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"


def test_a_cuda_engine_keeps_the_models_own_dtype_and_its_graphs() -> None:
    launch = plan_launch(make(engine_device="cuda", gpu_memory_utilization=0.5), inherited={})

    assert value_of(launch.arguments, "--dtype") == "auto"
    assert value_of(launch.arguments, "--gpu-memory-utilization") == "0.5"
    assert "--enforce-eager" not in launch.arguments
    assert "VLLM_CPU_KVCACHE_SPACE" not in launch.environment


@pytest.mark.parametrize(
    ("changes", "tokens"),
    [({}, "256"), ({"max_num_seqs": 300}, "300"), ({"step_tokens": 64}, "64"), ({"engine_device": "cuda"}, None)],
)
def test_a_step_is_bounded_in_tokens_where_vllms_own_would_last_seconds(
    changes: dict[str, Any], tokens: str | None
) -> None:
    arguments = plan_launch(make(**changes), inherited={}).arguments
    flag = "--max-num-batched-tokens"
    assert (value_of(arguments, flag) if flag in arguments else None) == tokens


def test_vllm_loads_our_plugins_only_and_guards_itself() -> None:
    launch = plan_launch(make(), inherited={"VLLM_PLUGINS": "lora_filesystem_resolver"})

    assert launch.environment["VLLM_PLUGINS"] == "lorry,lorry_routes"
    assert launch.environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"
    assert launch.environment["VLLM_NO_USAGE_STATS"] == "1"
    assert launch.environment["HF_HUB_OFFLINE"] == "1"
    middleware = [after for flag, after in pairwise(launch.arguments) if flag == "--middleware"]
    modules = [name.rpartition(".")[0] for name in middleware]
    assert modules == [f"serving.engine.{name}" for name in ("priority", "door", "guard")], "the last is the outermost"
    assert value_of(launch.arguments, "--scheduling-policy") == "priority"
    assert value_of(launch.arguments, "--worker-extension-cls") == "serving.engine.worker.extension.LorryWorker"


@pytest.mark.parametrize(
    "variable",
    [
        "VLLM_SKIP_MODEL_NAME_VALIDATION",
        "VLLM_SERVER_DEV_MODE",
        "VLLM_API_KEY",
        "VLLM_DP_SIZE",
        "VLLM_RAISE_ON_LOGIT_NANS",
    ],
)
def test_variables_that_would_open_the_engine_do_not_reach_it(variable: str) -> None:
    environment = plan_launch(make(), inherited={variable: "1", "PATH": "/bin"}).environment

    assert variable not in environment
    assert environment["PATH"] == "/bin"


def test_tokens_are_not_on_the_command_line() -> None:
    arguments = " ".join(plan_launch(make(), inherited={}).arguments)

    assert "engine-token" not in arguments
    assert "registry-token" not in arguments


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("--data-parallel-size 2", "idle rank"),
        ("--data_parallel_size=2", "idle rank"),
        ("--data-par 2", "idle rank"),
        ("-dp 2", "long form"),
        ("--api-server-count 2", "one API server"),
        ("--pipeline-parallel-size 2", "whole in every worker"),
        ("--nnodes 2", "socket of this machine"),
        ("--kv-transfer-config {}", "outlive an erasure"),
        ("--kv-transfer-config.kv_connector SharedStorageConnector", "outlive an erasure"),
        ("--kv_events_config.enable_kv_cache_events=true", "people's words"),
        ("--default-mm-loras.image=/x", "registry"),
        ("--kv-transfer-config.kv_connector_extra_config+ {}", "outlive an erasure"),
        ("--ec-transfer-config {}", "outlives an erasure"),
        ("--distributed-executor-backend=ray", "this machine's memory"),
        ("--kv-offloading-size=4", "outlive an erasure"),
        ("--max-loras 9", "Lorry sets it"),
        ("--no-enable-lora", "Lorry sets it"),
        ("--disable-lora", "Lorry sets it"),  # as vLLM 0.33 writes it
        ("--disable_lor", "Lorry sets it"),
        ("--enable-uvicorn-access-log", "Lorry sets it"),
        ("--enable-fastapi-docs", "Lorry sets it"),
        ("--lora-modules a=/b", "registry"),
        ("--enable-log-requests", "people's words"),
        ("--root-path /lorry", "whole path"),
        ("--enable-prompt-embeds", "wrong shape"),
        ("--config file.yaml", "cannot be checked"),
        ('--dtype "', "closing quotation"),
    ],
)
def test_arguments_that_break_a_promise_are_refused_with_the_reason(argument: str, reason: str) -> None:
    with pytest.raises(EngineMisconfigured, match=reason) as caught:
        plan_launch(make(engine_arguments=argument), inherited={})

    assert caught.value.field == "LORRY_ENGINE_ARGUMENTS"


def test_other_arguments_are_passed_on() -> None:
    arguments = plan_launch(make(engine_arguments="--quantization fp8 --seed -1"), inherited={}).arguments

    assert arguments[-4:] == ("--quantization", "fp8", "--seed", "-1")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    directory = tmp_path / "base"
    directory.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (directory / name).write_text("{}")
    return directory


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_directory_that_is_no_base_model_is_refused_before_vllm_starts(
    base: Path, tmp_path: Path, missing: str
) -> None:
    (base / missing).unlink()
    settings = make(base_directory=base, adapter_cache_directory=tmp_path / "cache", engine_port=free_port_block(1))

    with pytest.raises(EngineMisconfigured, match=missing.replace("model.", r"\*.")) as caught:
        check_host(settings)

    assert caught.value.field == "LORRY_BASE_DIRECTORY"


def test_a_cache_that_cannot_be_written_is_refused(base: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = make(
        base_directory=base, adapter_cache_directory=tmp_path / "file" / "cache", engine_port=free_port_block(1)
    )

    with pytest.raises(EngineMisconfigured, match="cannot be written: Not a directory") as caught:
        check_host(settings)

    assert caught.value.field == "LORRY_ADAPTER_CACHE_DIRECTORY"


def test_a_port_in_use_is_refused(base: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = make(base_directory=base, adapter_cache_directory=tmp_path / "cache", engine_port=port)

        with pytest.raises(EngineMisconfigured, match=f"cannot listen on 127.0.0.1:{port}") as caught:
            check_host(settings)

    assert caught.value.field == "LORRY_ENGINE_PORT"


def test_a_sound_host_is_accepted_and_the_cache_is_private(base: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    check_host(make(base_directory=base, adapter_cache_directory=cache, engine_port=free_port_block(1)))

    assert cache.stat().st_mode & 0o777 == 0o700
    assert list(cache.iterdir()) == []


def test_the_command_names_the_wrong_variable_and_starts_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "serving.engine"],
        env={"LORRY_BASE_DIRECTORY": "/nowhere", "LORRY_ENGINE_TOKEN": "short", "PATH": "/bin"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert "LORRY_ENGINE_TOKEN: must be at least 8" in done.stderr
    assert "LORRY_REGISTRY_URL: is not set" in done.stderr
    assert "Traceback" not in done.stderr
