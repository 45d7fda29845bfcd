"""What a machine's refusals mean for a training: too little memory, a full disk."""

from __future__ import annotations

import errno
import gc
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from safetensors import SafetensorError

from training.errors import DiskFull, OutOfMemory

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "cannot allocate memory")


@contextmanager
def machine_failures_named() -> Iterator[None]:
    """Turn the machine's refusals into errors of ours, and let go of what the failed work held.

    Raises:
        OutOfMemory: when memory was refused, by CUDA or by the system.
        DiskFull: when the disk, a quota or a limit on files refused a write.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as exc:
        if not is_memory(exc):
            raise
        _let_go(exc)
        raise OutOfMemory from exc
    except (OSError, SafetensorError) as exc:
        if not _is_full(exc):
            raise
        _let_go(exc)
        raise DiskFull(f"the adapter could not be written: {exc}", field="output_directory") from exc


def is_memory(exc: BaseException) -> bool:
    """Say whether an error means that memory was refused, by CUDA or by the system."""
    if isinstance(exc, MemoryError | torch.OutOfMemoryError):
        return True
    return any(words in str(exc).lower() for words in _NO_MEMORY)


def _is_full(exc: BaseException) -> bool:
    if isinstance(exc, OSError):
        return exc.errno in _FULL
    return any(f"os error {number}" in str(exc) for number in _FULL)


def _let_go(exc: BaseException) -> None:
    """Empty the frames that the error passed through: they hold a step's activations."""
    traceback.clear_frames(exc.__traceback__)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
