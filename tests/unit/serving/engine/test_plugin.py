from __future__ import annotations

import json
import os
import subprocess
import sys

REGISTER_TWICE = """
import json
from serving.engine.plugin import register
register()
register()
from vllm.lora.resolver import LoRAResolverRegistry
from vllm.platforms import current_platform
print(json.dumps([sorted(LoRAResolverRegistry.get_supported_resolvers()), current_platform.get_punica_wrapper()]))
"""
SETTINGS = {
    "LORRY_BASE_DIRECTORY": "/models/base",
    "LORRY_ENGINE_TOKEN": "engine-token",
    "LORRY_REGISTRY_URL": "http://127.0.0.1:8200",
    "LORRY_REGISTRY_ENGINE_TOKEN": "registry-token",
    "LORRY_ADAPTER_CACHE_DIRECTORY": "/cache",
}


def register_in_a_process(settings: dict[str, str]) -> tuple[list[str], str, str]:
    done = subprocess.run(
        [sys.executable, "-c", REGISTER_TWICE],
        env={"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", **settings},
        capture_output=True,
        text=True,
        check=True,
    )
    resolvers, wrapper = json.loads(done.stdout.splitlines()[-1])
    return resolvers, wrapper, done.stderr


def test_registering_twice_is_registering_once() -> None:
    resolvers, wrapper, complaints = register_in_a_process(SETTINGS)

    assert resolvers == ["lorry"]
    assert wrapper == "serving.engine.worker.cpu_product.GroupedProduct"
    assert "already registered" not in complaints


def test_a_vllm_that_we_did_not_start_is_left_alone() -> None:
    resolvers, wrapper, _ = register_in_a_process({})

    assert resolvers == []
    assert wrapper == "vllm.lora.punica_wrapper.punica_cpu.PunicaWrapperCPU"


def test_vllms_own_product_can_be_had_back_for_a_comparison_without_its_fault() -> None:
    _, wrapper, _ = register_in_a_process({**SETTINGS, "LORRY_CPU_PRODUCT": "stock"})

    assert wrapper == "serving.engine.worker.cpu_product.CorrectedGather"
