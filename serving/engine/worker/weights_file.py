"""An adapter's files, read out of the memory in which they were opened and verified, into memory of our own.

They are neither opened nor digested here: that memory is frozen, and its mark says that it is what the order meant.
Reading it takes few calls, because after every long call the engine's thread keeps us waiting for the interpreter. Our
memory is anonymous pages, which go back to the system as soon as the adapter is dropped. They are small ones: large
pages save 5 ms of an adapter of 20 MB where there are any, and cost 60 ms where the system has to make them first,
which is what it does on every machine whose memory has been in use for a while.

What is in the memory comes out in two ways, both after every number was looked at: as the named tensors that the header
describes, or, for who knows where those lie in adapters of this form, as one row of numbers.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from registry.manifest import CONFIG_FILE, WEIGHTS_FILE
from serving.engine.opened import OpenedFiles
from serving.engine.weights import check_tensors, is_sound
from serving.errors import AdapterDamaged

_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_MAX_HEADER_BYTES = 16 << 20


@dataclass(frozen=True, kw_only=True)
class AdapterFiles:
    """One adapter in host memory, as its files state it.

    Attributes:
        raw_config: the bytes of `adapter_config.json`.
        raw_header: those of the weights' header.
        data: a private copy of the weights' data; writing to it changes no file.
    """

    raw_config: bytes
    raw_header: bytes
    data: mmap.mmap

    @property
    def size_bytes(self) -> int:
        """Bytes of the weights' data."""
        return len(self.data)

    @cached_property
    def form(self) -> bytes:
        """Return a digest of everything but the numbers."""
        sizes = b"".join(size.to_bytes(8, "big") for size in (len(self.raw_config), self.size_bytes))
        return hashlib.sha256(sizes + self.raw_config + self.raw_header).digest()

    @cached_property
    def config(self) -> dict[str, Any]:
        """Return what `adapter_config.json` says.

        Raises:
            AdapterDamaged: when it is not a JSON object.
        """
        return _config(self.raw_config)

    @cached_property
    def tensors(self) -> dict[str, torch.Tensor]:
        """Return name → tensor: views of `data`, checked.

        Raises:
            AdapterDamaged: when the header does not describe the data.
            AdapterUnfit: naming the first tensor with values that would poison the engine.
        """
        tensors = _tensors(_header(self.raw_header), self.data)
        if not _is_plainly_sound(tensors, self.data):
            check_tensors(tensors)
        return tensors

    @property
    def dtype(self) -> torch.dtype | None:
        """The dtype that all tensors have, and of which the data is a whole number; None when there is no such."""
        dtypes = {tensor.dtype for tensor in self.tensors.values()}
        return dtypes.pop() if len(dtypes) == 1 and not self.size_bytes % next(iter(dtypes)).itemsize else None

    def numbers(self, dtype: torch.dtype) -> torch.Tensor:
        """Return the data as one row of numbers of the dtype that all tensors have, checked; a view of `data`.

        Raises:
            AdapterUnfit: naming the first tensor with values that would poison the engine.
        """
        numbers = torch.frombuffer(self.data, dtype=dtype)
        if not is_sound(numbers):
            check_tensors(self.tensors)
        return numbers


def new_memory(size_bytes: int) -> mmap.mmap:
    """Return private memory from the system.

    Raises:
        OSError: when it has none.
    """
    return mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def read_adapter(files: OpenedFiles, *, memory: Callable[[int], mmap.mmap] = new_memory) -> AdapterFiles:
    """Read an adapter.

    Args:
        files: where `adapter_config.json` and `adapter_model.safetensors` are.
        memory: gives private memory of so many bytes.

    Raises:
        AdapterDamaged: when the memory is not what was opened, or naming the file that cannot be used.
    """
    try:
        descriptor = files.open()
    except OSError as exc:
        raise AdapterDamaged(f"The adapter's memory cannot be read: {exc.strerror}") from exc
    try:
        begin, size_bytes = files.offset(CONFIG_FILE)
        config = os.pread(descriptor, size_bytes, begin)
        header, data = _read_weights(descriptor, *files.offset(WEIGHTS_FILE), memory=memory)
    finally:
        os.close(descriptor)
    return AdapterFiles(raw_config=config, raw_header=header, data=data)


def _read_weights(
    descriptor: int, begin: int, size_bytes: int, *, memory: Callable[[int], mmap.mmap]
) -> tuple[bytes, mmap.mmap]:
    """Return header and data section of the safetensors file that lies there."""
    header_bytes = int.from_bytes(os.pread(descriptor, min(8, size_bytes), begin), "little")
    if header_bytes > min(_MAX_HEADER_BYTES, size_bytes - 8):
        raise _damaged("its header is longer than the file")
    header = os.pread(descriptor, header_bytes, begin + 8)
    data_bytes = size_bytes - 8 - header_bytes
    if data_bytes <= 0 or len(header) != header_bytes:
        raise _damaged("it holds no tensors")
    data = memory(data_bytes)
    view, filled = memoryview(data), 0
    while filled < data_bytes:  # usually once
        count = os.preadv(descriptor, [view[filled:]], begin + 8 + header_bytes + filled)
        if not count:
            raise _damaged("it ends within its tensors")
        filled += count
    return header, data


def _header(raw: bytes) -> dict[str, Any]:
    try:
        header = json.loads(raw)
    except ValueError as exc:
        raise _damaged("its header is not JSON") from exc
    if not isinstance(header, dict):
        raise _damaged("its header is not an object")
    header.pop("__metadata__", None)
    return header


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


def _damaged(reason: str) -> AdapterDamaged:
    return AdapterDamaged(f"{WEIGHTS_FILE} cannot be used: {reason}", field=WEIGHTS_FILE)
