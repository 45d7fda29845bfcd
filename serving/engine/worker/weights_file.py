"""An adapter's files, read once into memory of our own: what was verified is what is used.

Nothing is mapped from the file: one that is cut short meanwhile would kill the process (SIGBUS), and every user's
requests with it. The memory is anonymous pages, which go back to the system as soon as the adapter is dropped.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from registry.manifest import CONFIG_FILE, WEIGHTS_FILE
from serving.engine.weights import check_tensors, is_sound
from serving.errors import AdapterDamaged

_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_MAX_HEADER_BYTES = 16 << 20


@dataclass(frozen=True, kw_only=True)
class AdapterFiles:
    """One adapter in host memory, as its files state it.

    Attributes:
        config: `adapter_config.json`.
        tensors: name → tensor, views of one private buffer; writing to them changes no file.
        size_bytes: of the buffer.
    """

    config: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    size_bytes: int


def read_adapter(directory: Path, digests: Mapping[str, str]) -> AdapterFiles:
    """Read, verify and check the adapter in `directory`.

    Args:
        directory: holds `adapter_config.json` and `adapter_model.safetensors`.
        digests: SHA-256, in hexadecimal, of both.

    Raises:
        AdapterDamaged: naming the file that is missing, cut short, or not of its digest.
        AdapterUnfit: naming the first tensor with values that would poison the engine.
    """
    try:
        config_bytes = (directory / CONFIG_FILE).read_bytes()
        with (directory / WEIGHTS_FILE).open("rb", buffering=0) as file:
            header, data, digest = _read_weights(file)
    except OSError as exc:
        name = Path(exc.filename).name if exc.filename else WEIGHTS_FILE
        raise AdapterDamaged(f"{name} cannot be read: {exc.strerror}", field=name) from exc
    _require_digest(CONFIG_FILE, hashlib.sha256(config_bytes).hexdigest(), digests)
    _require_digest(WEIGHTS_FILE, digest, digests)
    tensors = _tensors(header, data)
    if not _is_plainly_sound(tensors, data):
        check_tensors(tensors)
    return AdapterFiles(config=_config(config_bytes), tensors=tensors, size_bytes=len(data))


def _read_weights(file: BinaryIO) -> tuple[dict[str, Any], mmap.mmap, str]:
    """Return header, data section and SHA-256 of an open safetensors file."""
    digest = hashlib.sha256()
    size_bytes = os.fstat(file.fileno()).st_size
    start = file.read(8)
    header_bytes = int.from_bytes(start, "little")
    if header_bytes > min(_MAX_HEADER_BYTES, size_bytes - 8):
        raise _damaged("its header is longer than the file")
    raw = file.read(header_bytes)
    digest.update(start + raw)
    data_bytes = size_bytes - 8 - header_bytes
    if data_bytes <= 0 or len(raw) != header_bytes:
        raise _damaged("it holds no tensors")
    data = _pages(data_bytes)
    view, filled = memoryview(data), 0
    while filled < data_bytes:  # usually once: after every long call, the engine's thread keeps us waiting for the GIL
        count = file.readinto(view[filled:])  # type: ignore[attr-defined]
        if not count:
            raise _damaged("it was cut short while it was read")
        filled += count
    digest.update(view)
    try:
        header = json.loads(raw)
    except ValueError as exc:
        raise _damaged("its header is not JSON") from exc
    if not isinstance(header, dict):
        raise _damaged("its header is not an object")
    header.pop("__metadata__", None)
    return header, data, digest.hexdigest()


def _pages(size_bytes: int) -> mmap.mmap:
    """Return memory that goes back to the system when it is dropped; large pages spare a quarter of the time."""
    pages = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        pages.madvise(mmap.MADV_HUGEPAGE)
    except OSError:
        pass  # a kernel built without them
    return pages


def _tensors(header: dict[str, Any], data: mmap.mmap) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, entry in header.items():
        try:
            dtype, shape = _DTYPES[entry["dtype"]], [int(size) for size in entry["shape"]]
            begin, end = (int(offset) for offset in entry["data_offsets"])
            count = (end - begin) // dtype.itemsize
            flat = torch.frombuffer(data, dtype=dtype, count=count, offset=begin)
            tensors[name] = flat.view(shape) if begin % dtype.itemsize == 0 else flat.clone().view(shape)
        except (KeyError, TypeError, ValueError, RuntimeError) as exc:
            raise _damaged(f"its tensor {name} is not described properly") from exc
    if not tensors:
        raise _damaged("it holds no tensors")
    return tensors


def _is_plainly_sound(tensors: dict[str, torch.Tensor], data: mmap.mmap) -> bool:
    """Look at the whole buffer in one call; a call a tensor would hand the GIL to the engine's thread a thousand times.

    False says nothing: bytes between tensors, or several dtypes, are looked at one by one.
    """
    dtypes = {tensor.dtype for tensor in tensors.values()}
    if len(dtypes) > 1 or any(tensor.numel() == 0 for tensor in tensors.values()):
        return False
    dtype = dtypes.pop()
    return is_sound(torch.frombuffer(data, dtype=dtype, count=len(data) // dtype.itemsize))


def _config(raw: bytes) -> dict[str, Any]:
    try:
        config = json.loads(raw)
    except ValueError as exc:
        raise AdapterDamaged(f"{CONFIG_FILE} is not JSON", field=CONFIG_FILE) from exc
    if not isinstance(config, dict):
        raise AdapterDamaged(f"{CONFIG_FILE} is not an object", field=CONFIG_FILE)
    return config


def _require_digest(name: str, found: str, digests: Mapping[str, str]) -> None:
    if digests.get(name) != found:
        raise AdapterDamaged(f"{name} does not have the digest that its manifest states", field=name)


def _damaged(reason: str) -> AdapterDamaged:
    return AdapterDamaged(f"{WEIGHTS_FILE} cannot be used: {reason}", field=WEIGHTS_FILE)
