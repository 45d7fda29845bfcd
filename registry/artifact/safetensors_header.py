"""The header of a safetensors file, parsed by ourselves, because it comes from strangers.

A file is eight bytes of little-endian length, that many bytes of JSON, then the tensors' bytes.
The JSON maps each tensor's name to its dtype, shape and byte range. What we accept leaves no
byte of the file unaccounted for: ranges are contiguous from zero, in some order, and end with the file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple

from registry.artifact.untrusted import parse_json, printable
from registry.errors import AdapterInvalid
from registry.manifest import WEIGHTS_FILE

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 1 << 20
ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
_MAX_DIMENSION = 1 << 31
_MAX_OFFSET = 1 << 63
_FIELDS = frozenset({"dtype", "shape", "data_offsets"})
_in_order = attrgetter("begin", "end")
# Looked for only where the length makes no sense: some of these could begin a good file.
_FOREIGN = {
    b"PK": "a ZIP archive, as PyTorch's own format is",
    b"\x80": "a pickle, which is a program",
    b"\x1f\x8b": "a gzip archive",
    b"GGUF": "a GGUF file",
}


class Tensor(NamedTuple):
    """One tensor's entry; `begin` and `end` are byte offsets from the end of the header.

    A tuple, because an adapter has hundreds of them and a frozen dataclass takes several times as long to make.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Header:
    """Every tensor of a file, in the order of their bytes; they start `data_offset` bytes into the file."""

    data_offset: int
    tensors: tuple[Tensor, ...]


def header_length(first_bytes: bytes) -> int:
    """Return how many bytes of JSON follow the file's first eight bytes.

    Raises:
        AdapterInvalid: for a file that is too short or a length above 1 MiB.
    """
    if len(first_bytes) < LENGTH_BYTES:
        raise _invalid("is too short to be a safetensors file")
    length = int.from_bytes(first_bytes[:LENGTH_BYTES], "little")
    if not 2 <= length <= MAX_HEADER_BYTES:
        for start, kind in _FOREIGN.items():
            if first_bytes.startswith(start):
                raise _invalid(f"is {kind}, not a safetensors file")
        raise _invalid(f"declares a header of {length} bytes; 2 to {MAX_HEADER_BYTES} are accepted")
    return length


def parse_header(data: bytes, *, size_bytes: int) -> Header:
    """Read the header from the beginning of a file.

    Args:
        data: at least the length and the header; what follows is not looked at.
        size_bytes: the whole file's size.

    Raises:
        AdapterInvalid: naming the tensor and the reason.
    """
    data_offset = LENGTH_BYTES + header_length(data)
    if data_offset > min(size_bytes, len(data)):
        raise _invalid("ends inside its header")
    try:
        entries = parse_json(data[LENGTH_BYTES:data_offset], written_again=False)
    except ValueError as exc:
        raise _invalid(f"has a header that is not JSON: {exc}"[:300]) from exc
    if not isinstance(entries, dict):
        raise _invalid("has a header that is not a JSON object")
    _check_metadata(entries.pop("__metadata__", {}))
    tensors = sorted([_tensor(name, entry) for name, entry in entries.items()], key=_in_order)
    _check_contiguous(tensors, end=size_bytes - data_offset)
    return Header(data_offset=data_offset, tensors=tuple(tensors))


def _check_metadata(metadata: Any) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _invalid("has metadata that does not map text to text")


def _tensor(name: str, entry: Any) -> Tensor:
    if not isinstance(entry, dict) or entry.keys() != _FIELDS:
        raise _invalid("needs exactly dtype, shape and data_offsets", tensor=name)
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    item_bytes = ITEM_BYTES.get(dtype) if isinstance(dtype, str) else None
    if item_bytes is None:
        raise _invalid(f"has dtype {dtype!a}; F32, F16 and BF16 are accepted"[:200], tensor=name)
    if not isinstance(shape, list) or len(shape) > 8 or not _are_within(shape, 1, _MAX_DIMENSION):
        raise _invalid("has a shape that is not a list of at most 8 positive sizes", tensor=name)
    if not isinstance(offsets, list) or len(offsets) != 2 or not _are_within(offsets, 0, _MAX_OFFSET):
        raise _invalid("has data_offsets that are not two whole numbers", tensor=name)
    begin, end = offsets
    if end - begin != math.prod(shape) * item_bytes:
        raise _invalid(f"spans {end - begin} bytes, but its shape and dtype need others"[:200], tensor=name)
    return Tensor(name, dtype, tuple(shape), begin, end)


def _are_within(values: list[Any], least: int, below: int) -> bool:
    """Say whether all are whole numbers in a range; the types themselves are asked for: True is an int as well."""
    return not values or ({*map(type, values)} == {int} and least <= min(values) and max(values) < below)


def _check_contiguous(tensors: list[Tensor], *, end: int) -> None:
    """Every byte after the header belongs to exactly one tensor."""
    if not tensors:
        raise _invalid("holds no tensors")
    position = 0
    for tensor in tensors:
        if tensor.begin != position:
            kind = "overlaps another tensor" if tensor.begin < position else "leaves a gap before it"
            raise _invalid(kind, tensor=tensor.name)
        position = tensor.end
    if position != end:
        raise _invalid(f"declares {position} bytes of tensors but holds {end}")


def _invalid(reason: str, *, tensor: str | None = None) -> AdapterInvalid:
    if tensor is None:
        return AdapterInvalid(f"{WEIGHTS_FILE} {reason}", field=WEIGHTS_FILE)
    shown = printable(tensor)
    return AdapterInvalid(f"{WEIGHTS_FILE}: tensor {shown} {reason}", field=f"{WEIGHTS_FILE}:{shown}")
