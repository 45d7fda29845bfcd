"""Our LoRA product in vLLM's own layers, on one CPU process and spread over two, beside vLLM's product there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.support.cpu_layers import ADAPTERS, BATCHES, FEATURES, RANK
from tests.support.ports import free_port_block

ROOT = Path(__file__).resolve().parents[4]
LAYERS = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
FLOAT_TOLERANCE = 1e-6  # of the largest output; float32 has 1.2e-7


@pytest.fixture(scope="module", params=[(1, ["whole"]), (2, ["whole", "spread"])], ids=["1 process", "2 processes"])
def seen(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """What each process that shares the layers saw in each mode; `is_spread`: whether it computes a share of a rank."""
    devices, modes = request.param
    port = free_port_block(1)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "VLLM_DIST_IDENT": f"lorry-{uuid.uuid4().hex[:8]}",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.cpu_layers", str(devices), str(rank), str(port), *modes],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(devices)
    ]
    try:
        outputs = [process.communicate(timeout=600)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    lines = [line.removeprefix("SEEN ") for out in outputs for line in out.splitlines() if line.startswith("SEEN ")]
    assert len(lines) == devices, "\n".join(outputs)[-4000:]
    return [{**json.loads(line)[mode], "is_spread": mode == "spread"} for line in lines for mode in modes]


@pytest.mark.parametrize("filled", ["prepared", "foreign"])
@pytest.mark.parametrize("product", ["grouped", "stock"])
def test_every_layer_computes_what_vllm_computes_but_for_base_tokens(
    seen: list[dict[str, Any]], product: str, filled: str
) -> None:
    for process in seen:
        assert process["delta"] > 0.1, "the adapters change what layers compute"
        distances = {
            f"{batch} {layer}": process[f"{product} {filled} {batch} {layer}"] for batch in BATCHES for layer in LAYERS
        }
        assert max(distances.values()) <= FLOAT_TOLERANCE, distances
        assert not any(distance for key, distance in distances.items() if key.startswith("base")), distances


def test_a_prepared_adapter_is_computed_at_its_own_rank_where_it_has_one(seen: list[dict[str, Any]]) -> None:
    own = sum(rank for layers in ADAPTERS.values() for rank in layers.values())
    for process in seen:
        spread = process["is_spread"]  # then the products are apart, and each process has its share of the ranks
        assert process["ranks prepared"] == (0 if spread else own)
        assert process["ranks foreign"] == (0 if spread else len(ADAPTERS) * len(FEATURES) * RANK)


def test_adapters_of_a_form_that_came_twice_are_prepared_as_vllm_would_without_it(seen: list[dict[str, Any]]) -> None:
    for process in seen:
        for number, layers in ADAPTERS.items():
            prepared = process["files"][str(number)]
            assert prepared["learned"] == [False, False, True, True, True], number
            assert prepared["same"] == [True] * 5, number
            assert prepared["tensors"] == 2 * len(layers), number


def test_an_adapter_of_the_largest_rank_fills_a_slot_by_one_copy(seen: list[dict[str, Any]]) -> None:
    (alone,) = seen if len(seen) == 1 else (None,)
    for process in seen:
        assert process["files"]["1"]["copies"] == (1 if process is alone else 2 * len(ADAPTERS[1])), process["files"]
        assert process["files"]["2"]["copies"] == 2 * len(ADAPTERS[2]), "a lower rank leaves margins"
