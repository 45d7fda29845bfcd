"""Is this an adapter that an engine can serve beside thousands of others?

Three questions, each answerable without loading a weight: does the draft declare something
acceptable (before upload), does the configuration say the same (after), and do the tensors in the
header fit both. Everything is decided from bytes of bounded size.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from registry.artifact.peft_config import LINEAR_LAYERS, MAX_CONFIG_BYTES, canonical_config, parse_config
from registry.artifact.safetensors_header import Header, Tensor, parse_header
from registry.artifact.untrusted import printable
from registry.errors import AdapterInvalid
from registry.manifest import ADAPTER_FILES, CONFIG_FILE, WEIGHTS_FILE, Draft, LoraShape

_TENSOR_NAME = re.compile(
    r"base_model\.model\.model\.layers\.(?P<layer>0|[1-9][0-9]{0,3})\."
    r"(?:self_attn\.(?P<attention>[qkvo]_proj)|mlp\.(?P<mlp>(?:gate|up|down)_proj))"
    r"\.lora_(?P<side>[AB])\.weight",
    re.ASCII,
)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The most that one adapter may be."""

    max_adapter_bytes: int
    max_rank: int


@dataclass(frozen=True, kw_only=True)
class LoraPair:
    """One layer's update: A is (rank, inputs), B is (outputs, rank)."""

    layer: int
    module: str
    a: Tensor
    b: Tensor


def check_draft(draft: Draft, *, limits: Limits) -> None:
    """Refuse what no upload could make valid.

    Raises:
        AdapterInvalid: naming the field.
    """
    check_file_names(file.path for file in draft.files)
    total = sum(file.size_bytes for file in draft.files)
    if total > limits.max_adapter_bytes:
        raise AdapterInvalid(
            f"the files have {total} bytes together; at most {limits.max_adapter_bytes} are accepted", field="files"
        )
    config_bytes = next(file.size_bytes for file in draft.files if file.path == CONFIG_FILE)
    if config_bytes > MAX_CONFIG_BYTES:
        raise AdapterInvalid(f"{CONFIG_FILE} is larger than {MAX_CONFIG_BYTES} bytes", field=CONFIG_FILE)
    if draft.lora.rank > limits.max_rank:
        raise AdapterInvalid(f"rank {draft.lora.rank} is above the limit of {limits.max_rank}", field="lora.rank")
    if not draft.lora.target_modules or not set(draft.lora.target_modules) <= LINEAR_LAYERS:
        raise AdapterInvalid("only the seven linear layers can be targets", field="lora.target_modules")


def check_file_names(names: Iterable[str]) -> None:
    """Refuse a set of files that is not exactly an adapter's.

    Raises:
        AdapterInvalid: naming the file that is missing, extra or repeated.
    """
    found = sorted(names)
    if missing := sorted(ADAPTER_FILES - set(found)):
        raise AdapterInvalid(f"{missing[0]} is missing", field=missing[0])
    if extra := sorted(set(found) - ADAPTER_FILES):
        raise AdapterInvalid(f"{printable(extra[0])} does not belong to an adapter", field=printable(extra[0]))
    if len(found) != len(ADAPTER_FILES):
        raise AdapterInvalid("a file is declared twice", field="files")


def validate_adapter(
    config: bytes, weights_start: bytes, *, weights_size_bytes: int, draft: Draft, limits: Limits
) -> list[LoraPair]:
    """Check an adapter's configuration and its weights' header against its draft; return its LoRA pairs.

    Args:
        config: the bytes of ``adapter_config.json``.
        weights_start: the beginning of ``adapter_model.safetensors``, its header included.
        weights_size_bytes: the size of the whole weights file.
        draft: what the publisher declared.
        limits: what the engines can hold.

    Raises:
        AdapterInvalid: naming file, field and reason.
    """
    parsed = parse_config(config, max_rank=limits.max_rank)
    if canonical_config(config) != config:
        raise AdapterInvalid(f"{CONFIG_FILE} is not in canonical form", field=CONFIG_FILE)
    _check_declared(draft.lora, parsed.shape)
    return check_tensors(parse_header(weights_start, size_bytes=weights_size_bytes), shape=parsed.shape)


def check_tensors(header: Header, *, shape: LoraShape) -> list[LoraPair]:
    """Return the file's LoRA pairs, by layer and module.

    Raises:
        AdapterInvalid: for a tensor that is no half of a pair of the declared rank and modules.
    """
    halves = {_identify(tensor): tensor for tensor in header.tensors}
    pairs = []
    for layer, module in sorted({(layer, module) for layer, module, _ in halves}):
        a, b = halves.get((layer, module, "A")), halves.get((layer, module, "B"))
        if a is None or b is None:
            half: Tensor = a or b  # type: ignore[assignment]  # one of the two put the pair into the set
            raise _invalid(half, "has no counterpart")
        if module not in shape.target_modules:
            raise _invalid(a, f"belongs to {module}, which target_modules does not name")
        _check_rank(a, b, rank=shape.rank)
        pairs.append(LoraPair(layer=layer, module=module, a=a, b=b))
    if unused := sorted(set(shape.target_modules) - {pair.module for pair in pairs}):
        raise AdapterInvalid(f"{WEIGHTS_FILE} has no tensors for {unused[0]}", field=f"{CONFIG_FILE}:target_modules")
    return pairs


def _check_declared(declared: LoraShape, found: LoraShape) -> None:
    for name in ("rank", "alpha", "target_modules"):
        ours, theirs = getattr(found, name), getattr(declared, name)
        if name == "target_modules":
            theirs = tuple(sorted(theirs))
        if ours != theirs:
            raise AdapterInvalid(f"the draft declares {name} {theirs}, {CONFIG_FILE} has {ours}", field=f"lora.{name}")


def _identify(tensor: Tensor) -> tuple[int, str, str]:
    found = _TENSOR_NAME.fullmatch(tensor.name)
    if found is None:
        raise _invalid(tensor, "is not a LoRA weight of one of the seven linear layers")
    return int(found["layer"]), found["attention"] or found["mlp"], found["side"]


def _check_rank(a: Tensor, b: Tensor, *, rank: int) -> None:
    for tensor, axis in ((a, 0), (b, 1)):
        if len(tensor.shape) != 2:
            raise _invalid(tensor, "must have two dimensions")
        if tensor.shape[axis] != rank:
            raise _invalid(tensor, f"has shape {tensor.shape}, which does not fit rank {rank}")


def _invalid(tensor: Tensor, reason: str) -> AdapterInvalid:
    shown = printable(tensor.name)
    return AdapterInvalid(f"{WEIGHTS_FILE}: tensor {shown} {reason}", field=f"{WEIGHTS_FILE}:{shown}")
