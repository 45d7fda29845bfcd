"""Which tensors a weights file holds, and what is wrong with them: all that its header says.

Adapters of one base model, rank and set of layers have one header, byte for byte: it says nothing of whom they are.
So what was found of the last few sound headers is remembered, for the next adapter of the same kind.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from registry.artifact.base_shape import misfits
from registry.artifact.findings import Finding
from registry.artifact.safetensors_header import Tensor, parse_header
from registry.artifact.tensors import LoraPair, inspect_tensors
from registry.manifest import BaseShape, LoraShape

_REMEMBERED = 8  # a header has at most 1 MiB, and what is made of it some times that


class Layout(NamedTuple):
    """The tensors in the order of their bytes, the pairs that they make, and everything that is wrong with them."""

    tensors: tuple[Tensor, ...]
    pairs: tuple[LoraPair, ...]
    findings: tuple[Finding, ...]


class _UnsoundError(Exception):
    """A layout with findings: it is told, and not remembered, for it is not seen again."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout


def read_layout(start: bytes, *, size_bytes: int, shape: LoraShape, base: BaseShape | None) -> Layout:
    """Read a header and compare what it says with what an adapter must be.

    Args:
        start: the file's beginning, to the end of its header.
        size_bytes: the whole file's size.
        shape: the LoRA that the configuration describes.
        base: the base model that it must fit; None leaves that out.

    Raises:
        AdapterInvalid: when it is no header.
    """
    try:
        return _read_sound_layout(start, size_bytes, shape, base)
    except _UnsoundError as exc:
        return exc.layout


@lru_cache(maxsize=_REMEMBERED)
def _read_sound_layout(start: bytes, size_bytes: int, shape: LoraShape, base: BaseShape | None) -> Layout:
    header = parse_header(start, size_bytes=size_bytes)
    pairs, findings = inspect_tensors(header, shape=shape)
    if base is not None:
        findings += misfits(pairs, base)
    layout = Layout(tensors=header.tensors, pairs=tuple(pairs), findings=tuple(findings))
    if layout.findings:
        raise _UnsoundError(layout)
    return layout
