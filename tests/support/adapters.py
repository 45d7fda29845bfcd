"""Small adapters, written byte by byte, so that tests of the registry need neither torch nor a base model."""

from __future__ import annotations

import json
import random
from array import array
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from kit.canonical import sha256_bytes
from registry.manifest import CONFIG_FILE, WEIGHTS_FILE, BaseIdentity

MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
BASE_CONFIG = json.dumps(
    {
        "model_type": "llama",
        "num_hidden_layers": 2,
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "head_dim": 8,
    }
).encode()
"""The base that `write_adapter`'s adapters fit, unless told otherwise."""
BASE = BaseIdentity(
    id="test/base",
    config_sha256=sha256_bytes(BASE_CONFIG),
    weights_sha256="2" * 64,
    tokenizer_sha256="3" * 64,
    chat_template_sha256="4" * 64,
)


NEXT_BASE = BASE.model_copy(update={"id": "test/next", "weights_sha256": "5" * 64})
"""A base of the same sizes with other weights: what a campaign moves users to."""


def wide_base(hidden: int) -> tuple[BaseIdentity, bytes]:
    """A base with wider layers, and its configuration."""
    config = json.dumps(
        {**json.loads(BASE_CONFIG), "hidden_size": hidden, "intermediate_size": hidden, "head_dim": hidden}
    )
    identity = {**BASE.model_dump(), "id": f"test/wide-{hidden}", "config_sha256": sha256_bytes(config.encode())}
    return BaseIdentity.model_validate(identity), config.encode()


def peft_config(**changes: Any) -> dict[str, Any]:
    """The configuration that PEFT 0.21 writes, with `changes`."""
    config: dict[str, Any] = {
        "alora_invocation_tokens": None, "alpha_pattern": {}, "arrow_config": None, "auto_mapping": None,
        "base_model_name_or_path": "/home/somebody/base", "bias": "none", "corda_config": None,
        "ensure_weight_tying": False, "eva_config": None, "exclude_modules": None, "fan_in_fan_out": False,
        "inference_mode": True, "init_lora_weights": True, "kasa_config": None, "layer_replication": None,
        "layers_pattern": None, "layers_to_transform": None, "loftq_config": {}, "lora_alpha": 8, "lora_bias": False,
        "lora_dropout": 0.0, "lora_ga_config": None, "megatron_config": None, "megatron_core": "megatron.core",
        "modules_to_save": None, "monteclora_config": None, "peft_type": "LORA", "peft_version": "0.21.2",
        "qalora_group_size": 16, "r": 4, "rank_pattern": {}, "revision": None, "target_modules": list(MODULES),
        "target_parameters": None, "task_type": "CAUSAL_LM", "trainable_token_indices": None, "use_bdlora": None,
        "use_dora": False, "use_qalora": False, "use_rslora": False, "velora_config": None,
    }  # fmt: skip
    return config | changes


def tensor_name(layer: int, module: str, side: str) -> str:
    block = "self_attn" if module in {"q_proj", "k_proj", "v_proj", "o_proj"} else "mlp"
    return f"base_model.model.model.layers.{layer}.{block}.{module}.lora_{side}.weight"


def lora_shapes(
    *, rank: int = 4, layers: int = 2, hidden: int = 8, modules: Sequence[str] = MODULES
) -> dict[str, tuple[int, ...]]:
    """Tensor name → shape of a LoRA of a base with square layers."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(layers):
        for module in modules:
            shapes[tensor_name(layer, module, "A")] = (rank, hidden)
            shapes[tensor_name(layer, module, "B")] = (hidden, rank)
    return shapes


def safetensors_bytes(shapes: Mapping[str, tuple[int, ...]], *, seed: int = 0) -> bytes:
    """A safetensors file of float32 tensors with small random values."""
    rng = random.Random(seed)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = bytearray()
    for name, shape in shapes.items():
        count = 1
        for size in shape:
            count *= size
        begin = len(data)
        data += array("f", [rng.uniform(-0.1, 0.1) for _ in range(count)]).tobytes()
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [begin, len(data)]}
    return with_header(header, bytes(data))


def empty_weights(shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    """A safetensors file of zeros, which takes no time to write however large it is."""
    header, begin = dict[str, Any](), 0
    for name, shape in shapes.items():
        end = begin + 4 * prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [begin, end]}
        begin = end
    return with_header(header, bytes(begin))


def poisoned(value: float, *, at: int = -1) -> bytes:
    """Weights that fit everything but for one number."""
    data = bytearray(safetensors_bytes(lora_shapes()))
    start = len(data) + 4 * at if at < 0 else 8 + int.from_bytes(data[:8], "little") + 4 * at
    data[start : start + 4] = array("f", [value]).tobytes()
    return bytes(data)


def with_header(header: Any, data: bytes) -> bytes:
    """A safetensors file with any header, valid or not."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + data


def write_adapter(
    directory: Path, *, seed: int = 0, hidden: int = 8, layers: int = 2, rank: int = 4, **changes: Any
) -> Path:
    """Write an adapter as PEFT would; `seed` decides the weights, `changes` the configuration."""
    directory.mkdir(parents=True, exist_ok=True)
    config = peft_config(r=rank, **changes)
    (directory / CONFIG_FILE).write_text(json.dumps(config, indent=2))
    shapes = lora_shapes(rank=rank, layers=layers, hidden=hidden)
    (directory / WEIGHTS_FILE).write_bytes(safetensors_bytes(shapes, seed=seed))
    return directory
