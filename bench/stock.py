"""The peer: stock vLLM with its own filesystem resolver, given the same limits as our engine."""

from __future__ import annotations

import sys
from pathlib import Path

import httpx

from lorry.local.part import Part
from serving.engine.launch import SERVER_MODULE, TARGET_MODULES
from serving.engine.settings import EngineSettings


def stock_engine(settings: EngineSettings, *, adapters: Path, port: int, log_path: Path) -> Part:
    """Return the peer as a part: `adapters` holds one directory an adapter, as its resolver wants it.

    Limits, threads, dtype and layers are ours; the plugins, guard and registry are not there. Its adapters lie on the
    local disk already, which is the best case of its documentation.
    """
    base = str(settings.base_directory)
    arguments = ["--model", base, "--served-model-name", base, settings.base_name]
    arguments += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--enforce-eager"]
    arguments += ["--max-model-len", str(settings.max_model_len), "--max-num-seqs", str(settings.max_num_seqs)]
    if settings.most_step_tokens is not None:
        arguments += ["--max-num-batched-tokens", str(settings.most_step_tokens)]
    arguments += ["--enable-lora", "--max-loras", str(settings.max_loras)]
    arguments += ["--max-cpu-loras", str(settings.max_cpu_loras), "--max-lora-rank", str(settings.max_lora_rank)]
    arguments += ["--lora-target-modules", *TARGET_MODULES, "--disable-uvicorn-access-log"]
    return Part(
        name="stock vLLM",
        argv=(sys.executable, "-m", SERVER_MODULE, *arguments),
        environment={
            "VLLM_PLUGINS": "lora_filesystem_resolver",
            "VLLM_LORA_RESOLVER_CACHE_DIR": str(adapters),
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_CPU_KVCACHE_SPACE": str(settings.kv_cache_gib),
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": str(settings.engine_threads),
            "HF_HUB_OFFLINE": "1",
        },
        log_path=log_path,
        address=f"http://127.0.0.1:{port}",
        ports=(port,),
        is_healthy=lambda: _healthy(port),
        start_timeout_seconds=300,
    )


async def _healthy(port: int) -> bool:
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
            return (await client.get(f"http://127.0.0.1:{port}/health")).status_code == 200
    except httpx.HTTPError:
        return False
