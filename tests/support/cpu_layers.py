"""A model of vLLM's own parallel layers on CPU processes, computed with vLLM's LoRA product and with ours.

``python -m tests.support.cpu_layers <devices> <rank> <port> <mode>…`` runs one of `devices` processes that share the
layers, and prints as JSON how far ours is from vLLM's, as a share of the largest output, in each mode: `whole`, or
`spread` when the adapters' ranks are spread over the devices (vLLM's ``fully_sharded_loras``); and what our worker
prepares of adapters' files, beside what vLLM's own parts make of them. Processes of their own, so that nothing of it
outlives the test.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from safetensors.torch import save_file
from torch import nn
from vllm.config import CacheConfig, LoRAConfig, ParallelConfig, VllmConfig, set_current_vllm_config
from vllm.distributed import init_distributed_environment, initialize_model_parallel
from vllm.lora.layers import LoRAMapping
from vllm.lora.lora_model import LoRAModel
from vllm.lora.lora_weights import LoRALayerWeights
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.model_executor.layers.linear import MergedColumnParallelLinear, QKVParallelLinear, RowParallelLinear
from vllm.platforms import current_platform

from registry.manifest import CONFIG_FILE, WEIGHTS_FILE
from serving.engine.worker.cpu_product import use_product
from serving.engine.worker.preparation import PreparedAdapter, pairs_of
from serving.engine.worker.stager import StageOrder
from serving.engine.worker.weights_file import read_adapter
from serving.engine.worker_seam import PooledModelManager, PooledWorkerManager
from tests.support.opened import opened_directory

HIDDEN, HEAD, HEADS, KV_HEADS, INNER = 64, 8, 8, 2, 96
SLOTS, RANK = 4, 16
FEATURES = {  # (features in, features out) of what an adapter touches
    "q_proj": (HIDDEN, HEAD * HEADS),
    "k_proj": (HIDDEN, HEAD * KV_HEADS),
    "v_proj": (HIDDEN, HEAD * KV_HEADS),
    "o_proj": (HEAD * HEADS, HIDDEN),
    "gate_proj": (HIDDEN, INNER),
    "up_proj": (HIDDEN, INNER),
    "down_proj": (INNER, HIDDEN),
}
ADAPTERS: dict[int, dict[str, int]] = {  # number → rank of each layer that it touches
    1: dict.fromkeys(FEATURES, RANK),
    2: dict.fromkeys(FEATURES, 4),
    3: {"q_proj": 8, "v_proj": 8},
    4: {"k_proj": 2, "up_proj": 3, "down_proj": RANK},
}
BATCHES: dict[str, list[int]] = {  # of the adapter of each token; 0 = the base
    "decode": [1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 3, 3],
    "prefill": [4] * 40 + [0] * 7 + [1] * 40 + [4] * 33,
    "one": [2] * 16,
    "base": [0] * 5,
}


class Tiny(nn.Module):
    """One decoder layer's linear parts, with every kind of sharding that they have."""

    packed_modules_mapping: ClassVar[dict[str, list[str]]] = {
        "qkv_proj": ["q_proj", "k_proj", "v_proj"],
        "gate_up_proj": ["gate_proj", "up_proj"],
    }
    embedding_modules: ClassVar[dict[str, str]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace()
        self.qkv_proj = QKVParallelLinear(HIDDEN, HEAD, HEADS, KV_HEADS, bias=False, prefix="qkv_proj")
        self.o_proj = RowParallelLinear(HEAD * HEADS, HIDDEN, bias=False, prefix="o_proj")
        self.gate_up_proj = MergedColumnParallelLinear(HIDDEN, [INNER, INNER], bias=False, prefix="gate_up_proj")
        self.down_proj = RowParallelLinear(INNER, HIDDEN, bias=False, prefix="down_proj")
        generator = torch.Generator().manual_seed(1)
        for layer in self.children():
            layer.weight.data = torch.randn(layer.weight.shape, generator=generator) / 8
            layer.quant_method.process_weights_after_loading(layer)


def adapter(number: int) -> LoRAModel:
    """Return an adapter of random numbers, the same in every process."""
    generator = torch.Generator().manual_seed(number)
    loras = {}
    for name, rank in ADAPTERS[number].items():
        features_in, features_out = FEATURES[name]
        a = torch.randn(rank, features_in, generator=generator) / 8
        b = torch.randn(features_out, rank, generator=generator) / rank**0.5
        loras[name] = LoRALayerWeights(name, rank, rank, a, b)
    return LoRAModel(number, max(ADAPTERS[number].values()), loras)


def manager_for(config: VllmConfig) -> PooledModelManager:
    """Return our slots over the layers, with the product that the platform names."""
    return PooledModelManager(Tiny(), 64, 256, 512, config.lora_config, torch.device("cpu"), vllm_config=config)


def fill(manager: PooledModelManager, *, prepared: bool) -> None:
    """Put every adapter in a slot: as the stager prepares it, or as vLLM does."""
    for number in ADAPTERS:
        lora = adapter(number)
        if prepared:
            manager._create_merged_loras_inplace(lora)
            pairs = [pair for name in lora.loras for pair in pairs_of(name, manager.modules[name], lora.loras[name])]
            shell = LoRAModel(number, lora.rank, {})
            manager.register(
                PreparedAdapter(
                    version_id=f"v{number:032x}",
                    lora=shell,
                    regions=tuple(region for region, _ in pairs),
                    tensors=[tensor for _, tensor in pairs],
                    size_bytes=0,
                ),
                number,
            )
        else:
            manager.add_adapter(lora)
        manager.activate_adapter(number)


def outputs(manager: PooledModelManager, *, of_base: bool = False) -> dict[str, torch.Tensor]:
    """Return what every layer makes of every batch, or of one with the same numbers for the base alone."""
    seen = {}
    for batch, adapters in BATCHES.items():
        numbers = [0] * len(adapters) if of_base else adapters
        mapping = LoRAMapping(tuple(numbers), tuple(numbers), is_prefill=batch == "prefill")
        manager.set_adapter_mapping(mapping)
        generator = torch.Generator().manual_seed(len(numbers))
        for name, layer in manager.model.named_children():
            width = layer.base_layer.input_size_per_partition if "qkv" not in name and "gate" not in name else HIDDEN
            x = torch.randn(len(numbers), width, generator=generator)
            with torch.inference_mode():
                seen[f"{batch} {name}"] = layer(x)[0]
    return seen


def compare(config: VllmConfig) -> dict[str, float]:
    """Return the largest distance from vLLM's own product, by product, how slots were filled, and batch."""
    own_name = f"{PunicaWrapperCPU.__module__}.{PunicaWrapperCPU.__qualname__}"
    type(current_platform).get_punica_wrapper = classmethod(lambda cls: own_name)
    stock = manager_for(config)
    base = outputs(stock, of_base=True)  # nothing is in the slots yet
    fill(stock, prepared=False)
    theirs = outputs(stock)
    found: dict[str, float] = {"delta": _distance(theirs["one qkv_proj"], base["one qkv_proj"])}
    for product in ("grouped", "stock"):
        use_product(product)  # type: ignore[arg-type]  # mypy does not see the literals
        for prepared in (True, False):
            ours = manager_for(config)
            fill(ours, prepared=prepared)
            for key, output in outputs(ours).items():
                untouched = torch.tensor(BATCHES[key.split()[0]]) == 0
                expected = torch.where(untouched[:, None], base[key], theirs[key])
                label = f"{product} {'prepared' if prepared else 'foreign'} {key}"
                found[label] = _distance(output, expected)
            if product == "grouped":
                found[f"ranks {'prepared' if prepared else 'foreign'}"] = computed_ranks(ours)
    return found


def prepare_files(config: VllmConfig) -> dict[str, Any]:
    """Say of each adapter of five of one form how the worker prepared it, and whether as a worker that knows no form.

    `learned` is whether the worker knew the form by then; `same` whether slots that both fill hold the same numbers;
    `copies` how many copies filled the last.
    """
    seen: dict[str, Any] = {}
    model = SimpleNamespace(get_vocab_size=lambda: 256, is_encoder_decoder=False, hf_config=SimpleNamespace())
    model.hf_config.get_text_config = lambda: SimpleNamespace(max_position_embeddings=64)
    scheduler = SimpleNamespace(max_num_seqs=64, max_num_batched_tokens=256)
    stated = SimpleNamespace(scheduler_config=scheduler, model_config=model, lora_config=config.lora_config)
    slots = manager_for(config)

    def worker() -> PooledWorkerManager:
        worker = PooledWorkerManager(stated, torch.device("cpu"), {})
        worker._adapter_manager = slots
        return worker

    for number, ranks in ADAPTERS.items():
        one = worker()
        learned, same = [], []
        for seed in range(5):
            with tempfile.TemporaryDirectory() as folder, opened_directory(_write(Path(folder), ranks, seed)) as opened:
                order = StageOrder(version_id="v1", number=1, files=opened.files)
                files = read_adapter(opened.files)
                learned.append(one.preparation.knows(files.form))
                ours = one.preparation.prepare(order, files)
                vllms = worker().preparation.prepare(order, read_adapter(opened.files))
            for index, prepared in enumerate((ours, vllms)):
                slots._fill(index, prepared)
            pairs = zip(slots._tensors(0), slots._tensors(1), strict=True)
            same.append(
                (ours.regions, ours.lora.rank, ours.size_bytes) == (vllms.regions, vllms.lora.rank, vllms.size_bytes)
                and all(torch.equal(mine, theirs) for mine, theirs in pairs)
                and any(bool(tensor.any()) for tensor in slots._tensors(0))
            )
        copies = len(ours.tensors)
        seen[str(number)] = {"learned": learned, "same": same, "tensors": len(vllms.tensors), "copies": copies}
    return seen


def _write(directory: Path, ranks: dict[str, int], seed: int) -> Path:
    """Write an adapter of layers of several ranks, each scaled in its own way."""
    generator, tensors = torch.Generator().manual_seed(seed), {}
    for name, rank in ranks.items():
        features_in, features_out = FEATURES[name]
        for side, shape in (("A", (rank, features_in)), ("B", (features_out, rank))):
            tensors[f"base_model.model.{name}.lora_{side}.weight"] = torch.randn(shape, generator=generator)
    save_file(tensors, directory / WEIGHTS_FILE)
    config = {"r": RANK, "lora_alpha": 24, "target_modules": sorted(ranks), "bias": "none", "rank_pattern": ranks}
    (directory / CONFIG_FILE).write_text(json.dumps(config))
    return directory


def computed_ranks(manager: PooledModelManager) -> int:
    """Return the sum of the ranks that are computed for all layers, parts and slots."""
    (wrapper,) = manager.punica_wrapper_mapping.values()
    layers = wrapper._layers.values()
    return sum(a.shape[1] for layer in layers for parts in layer.parts.values() for _, a, _ in parts)


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())


def config_for(devices: int, *, spread: bool) -> VllmConfig:
    """Return what vLLM is told of the devices and the slots."""
    lora = LoRAConfig(
        max_lora_rank=RANK, max_loras=SLOTS, max_cpu_loras=SLOTS, lora_dtype=torch.float32, fully_sharded_loras=spread
    )
    return VllmConfig(
        lora_config=lora,
        cache_config=CacheConfig(block_size=32),
        parallel_config=ParallelConfig(tensor_parallel_size=devices, distributed_executor_backend="external_launcher"),
    )


def main(devices: int, rank: int, port: int, modes: list[str]) -> dict[str, dict[str, Any]]:
    """Join the other processes and compare, mode after mode."""
    with set_current_vllm_config(config_for(devices, spread=False)):
        init_distributed_environment(devices, rank, f"tcp://127.0.0.1:{port}", rank, backend="gloo")
        initialize_model_parallel(devices)
    seen: dict[str, dict[str, Any]] = {}
    for mode in modes:
        config = config_for(devices, spread=mode == "spread")
        with set_current_vllm_config(config):
            seen[mode] = {**compare(config), "files": prepare_files(config)}
    return seen


if __name__ == "__main__":
    devices, rank, port = (int(argument) for argument in sys.argv[1:4])
    print("SEEN " + json.dumps(main(devices, rank, port, sys.argv[4:])), flush=True)
