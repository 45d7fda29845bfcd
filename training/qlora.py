"""The 4-bit base model that stays in memory, and the adapter that is put on it and taken off again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, PeftConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from transformers.utils import logging as transformers_logging

from registry.manifest import WEIGHTS_FILE
from training.config import LINEAR_LAYERS, TrainingConfig
from training.errors import AdapterUnreadable, BaseModelUnavailable, ConfigInvalid

# What an adapter's weights mean depends on, besides their names and shapes.
_MEANING = ("r", "lora_alpha", "use_rslora", "use_dora")
# PEFT shows a bar when it takes an adapter off, and the first bar starts a thread: where memory has run out that thread
# ends before it began, and whoever started it waits for it for ever.
tqdm.monitor_interval = 0


def compute_dtype(device: str) -> torch.dtype:
    """Return what matrices are multiplied in: bfloat16 on CUDA, float32 on CPU, where bfloat16 crawls."""
    return torch.bfloat16 if device.startswith("cuda") else torch.float32


def load_tokenizer(directory: Path) -> Any:
    """Return the base model's tokenizer, without asking any network.

    Raises:
        BaseModelUnavailable: when it has no chat template, since every example is a chat.
    """
    tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    if not tokenizer.chat_template:
        raise BaseModelUnavailable(f"the base model in {directory} has no chat template", field="chat_template")
    return tokenizer


def load_dense(directory: Path, *, device: str) -> Any:
    """Return the base as the engine serves it: unquantised, in the compute dtype, frozen, in evaluation mode."""
    return _load(directory, device=device, quantization_config=None)


def load_quantised(directory: Path, *, device: str, expanded: bool = False) -> Any:
    """Return the base in NF4, frozen; embeddings and norms stay in the compute dtype.

    `expanded` keeps the values that the 4 bits stand for instead of the bits: the same numbers in every product, an
    eighth quicker on a CPU, which would expand each matrix twice a step, for eight times the memory.
    """
    nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute_dtype(device))
    model = _load(directory, device=device, quantization_config=nf4)
    for module in model.modules():
        if isinstance(module, Linear4bit):
            # Otherwise one forward pass in evaluation mode repacks the weights for CPUs with AVX512-BF16: from then on
            # results are bfloat16's and gradients are wrong.
            module.support_avx512bf16_for_cpu = False
    if expanded:
        _expand(model)
    return model


def _expand(model: Any) -> None:
    for name, module in list(model.named_modules()):
        if isinstance(module, Linear4bit):
            values = dequantize_4bit(module.weight.data, module.weight.quant_state).to(module.compute_dtype)
            layer = torch.nn.Linear(module.in_features, module.out_features, bias=False, device="meta")
            layer.weight = torch.nn.Parameter(values.contiguous(), requires_grad=False)
            layer.bias = module.bias
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, layer)


@contextmanager
def fresh_adapter(base: Any, config: TrainingConfig, *, start: Path | None = None) -> Iterator[Any]:
    """Put a new adapter on `base` and take it off at the end, whatever happened in between.

    The adapter's first weights are those of the adapter in the directory `start`, or come from `config.seed` alone.
    When the block ends, `base` has the modules, the weights and the forward method that it had before.

    Raises:
        ConfigInvalid: naming `start`: its shape is another one than `config` asks for.
        AdapterUnreadable: `start` is not an adapter written by PEFT.
    """
    attributes = set(vars(base))
    torch.manual_seed(config.seed)
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=list(LINEAR_LAYERS),
        bias="none",
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(base, lora)
    try:
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.to(torch.float32)
        if start is not None:
            _begin_with(model, start, lora)
        if config.gradient_checkpointing:
            base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        yield model
    finally:
        base.gradient_checkpointing_disable()
        base.disable_input_require_grads()
        model.unload()
        for name in set(vars(base)) - attributes:  # PEFT leaves a forward method, hooks and tags on the object
            delattr(base, name)
        base.eval()


def _begin_with(model: Any, start: Path, lora: LoraConfig) -> None:
    """Give the adapter on `model` the weights of another one, which must mean the same there."""
    try:
        theirs, weights = PeftConfig.from_pretrained(str(start)), load_file(start / WEIGHTS_FILE)
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as exc:
        raise AdapterUnreadable(f"{start} is not an adapter written by PEFT: {exc}", field="start") from exc
    for name in _MEANING:
        asked, found = getattr(lora, name), getattr(theirs, name, None)
        if asked != found:
            raise ConfigInvalid(
                f"start: that adapter has {name} {found}, and the training asks for {asked}; set it alike",
                field="start",
            )
    ours = {
        name: tensor.shape for name, tensor in get_peft_model_state_dict(model, save_embedding_layers=False).items()
    }
    if ours != {name: tensor.shape for name, tensor in weights.items()}:
        raise ConfigInvalid("start: that adapter has other layers or shapes than the training's", field="start")
    set_peft_model_state_dict(model, weights)


def _load(directory: Path, *, device: str, quantization_config: Any) -> Any:
    with _no_progress_bars():
        model = AutoModelForCausalLM.from_pretrained(
            directory,
            dtype=compute_dtype(device),
            device_map=device,
            quantization_config=quantization_config,
            local_files_only=True,
        )
    model.requires_grad_(False)
    model.config.use_cache = False
    return model.eval()


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
