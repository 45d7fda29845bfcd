"""The tensors of an adapter: pairs of LoRA weights of the seven linear layers, of one rank, and nothing else."""

from __future__ import annotations

import re
from typing import NamedTuple

from registry.artifact.findings import Finding
from registry.artifact.safetensors_header import Header, Tensor
from registry.artifact.untrusted import printable
from registry.errors import AdapterInvalid
from registry.manifest import CONFIG_FILE, WEIGHTS_FILE, LoraShape

_TENSOR_NAME = re.compile(
    r"base_model\.model\.model\.layers\.(?P<layer>0|[1-9][0-9]{0,3})\."
    r"(?:self_attn\.(?P<attention>[qkvo]_proj)|mlp\.(?P<mlp>(?:gate|up|down)_proj))"
    r"\.lora_(?P<side>[AB])\.weight",
    re.ASCII,
)


class LoraPair(NamedTuple):
    """One layer's update: A is (rank, inputs), B is (outputs, rank)."""

    layer: int
    module: str
    a: Tensor
    b: Tensor


def check_tensors(header: Header, *, shape: LoraShape) -> list[LoraPair]:
    """Return the file's LoRA pairs, by layer and module.

    Raises:
        AdapterInvalid: for the first tensor that is no half of a pair of the declared rank and modules.
    """
    pairs, findings = inspect_tensors(header, shape=shape)
    for finding in findings:
        raise AdapterInvalid(finding.message, field=finding.field)
    return pairs


def inspect_tensors(header: Header, *, shape: LoraShape) -> tuple[list[LoraPair], list[Finding]]:
    """Return the file's LoRA pairs, by layer and module, and everything that is wrong with its tensors."""
    findings: list[Finding] = []
    halves: dict[tuple[int, str, str], Tensor] = {}
    for tensor in header.tensors:
        identity = _identify(tensor)
        if identity is None:
            findings.append(_finding("tensor-name", tensor, "is not a LoRA weight of one of the seven linear layers"))
        else:
            halves[identity] = tensor
    pairs = []
    for layer, module in sorted({(layer, module) for layer, module, _ in halves}):
        a, b = halves.get((layer, module, "A")), halves.get((layer, module, "B"))
        if a is None or b is None:
            half: Tensor = a or b  # type: ignore[assignment]  # one of the two put the pair into the set
            findings.append(_finding("no-counterpart", half, "has no counterpart"))
            continue
        wrong = _wrong_shapes(a, b, rank=shape.rank)
        findings += wrong
        if module not in shape.target_modules:
            reason = f"belongs to {module}, which target_modules does not name"
            findings.append(_finding("undeclared-module", a, reason))
        if not wrong:
            pairs.append(LoraPair(layer=layer, module=module, a=a, b=b))
    for unused in sorted(set(shape.target_modules) - {module for _, module, _ in halves}):
        message = f"{WEIGHTS_FILE} has no tensors for {unused}"
        findings.append(Finding(code="no-tensors", field=f"{CONFIG_FILE}:target_modules", message=message))
    return pairs, findings


def _identify(tensor: Tensor) -> tuple[int, str, str] | None:
    """Return layer, module and side; None for what is no LoRA weight."""
    found = _TENSOR_NAME.fullmatch(tensor.name)
    if found is None:
        return None
    layer, attention, mlp, side = found.groups()
    return int(layer), attention or mlp, side


def _wrong_shapes(a: Tensor, b: Tensor, *, rank: int) -> list[Finding]:
    found: list[Finding] = []
    for tensor, axis in ((a, 0), (b, 1)):
        if len(tensor.shape) != 2:
            found.append(_finding("dimensions", tensor, "must have two dimensions"))
        elif tensor.shape[axis] != rank:
            found.append(_finding("rank", tensor, f"has shape {tensor.shape}, which does not fit rank {rank}"))
    return found


def _finding(code: str, tensor: Tensor, reason: str) -> Finding:
    shown = printable(tensor.name)
    return Finding(code=code, field=f"{WEIGHTS_FILE}:{shown}", message=f"{WEIGHTS_FILE}: tensor {shown} {reason}")
