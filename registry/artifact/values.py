"""The numbers in a weights file, looked at as they stream by: one that is not finite would poison an engine.

No tensor is ever assembled and torch is not needed: neighbours of one dtype are checked together, in whatever pieces
they arrive.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from registry.artifact.findings import Finding
from registry.artifact.safetensors_header import ITEM_BYTES, Tensor
from registry.artifact.untrusted import printable
from registry.manifest import MAX_WEIGHT, WEIGHTS_FILE

# Without their sign bit, floating-point numbers are ordered like their bit patterns; infinities and NaN come last.
_LARGEST_BITS = {"F16": 0x5640, "BF16": 0x42C8}


class ValueCheck:
    """Takes the bytes after a header, in pieces of any length, and collects the tensors with impossible values."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self._tensors = tuple(tensors)  # in the order of their bytes, without gaps
        self._runs = list(_runs(self._tensors))
        self._position = 0
        self._cut = b""
        self.findings: dict[str, Finding] = {}

    def update(self, data: memoryview) -> None:
        """Look at the next bytes."""
        while data and self._runs:
            end, dtype = self._runs[0]
            taken = self._look(data[: end - self._position - len(self._cut)], dtype)
            data = data[taken:]
            if self._position == end:
                self._runs.pop(0)

    def _look(self, data: memoryview, dtype: str) -> int:
        """Check whole items, keep the bytes of one that is cut in two; return how many bytes were taken."""
        size = ITEM_BYTES[dtype]
        if self._cut:
            missing = data[: size - len(self._cut)]
            self._cut += bytes(missing)
            if len(self._cut) == size:
                self._check(memoryview(self._cut), dtype)
                self._cut = b""
            return len(missing)
        whole = len(data) - len(data) % size
        if whole:
            self._check(data[:whole], dtype)
        self._cut = bytes(data[whole:])
        return len(data)

    def _check(self, items: memoryview, dtype: str) -> None:
        if not _all_sane(items, dtype):
            self._blame(items, dtype)
        self._position += len(items)

    def _blame(self, items: memoryview, dtype: str) -> None:
        """Name every tensor that has a bad value among these items."""
        for tensor in self._tensors:
            begin, end = max(tensor.begin, self._position), min(tensor.end, self._position + len(items))
            if begin < end and not _all_sane(items[begin - self._position : end - self._position], dtype):
                shown = printable(tensor.name)
                self.findings[tensor.name] = Finding(
                    code="value",
                    field=f"{WEIGHTS_FILE}:{shown}",
                    message=f"{WEIGHTS_FILE}: tensor {shown} has a value that is not finite, or beyond ±{MAX_WEIGHT:g}",
                )


def _all_sane(items: memoryview, dtype: str) -> bool:
    import numpy as np  # here, so that a client which only resolves names does without it

    if dtype == "F32":
        numbers = np.frombuffer(items, dtype="<f4")
        with np.errstate(invalid="ignore"):
            return bool(numbers.min() >= -MAX_WEIGHT and numbers.max() <= MAX_WEIGHT)  # false for NaN as well
    bits = np.frombuffer(items, dtype="<u2") & np.uint16(0x7FFF)
    return int(bits.max()) <= _LARGEST_BITS[dtype]


def _runs(tensors: Iterable[Tensor]) -> Iterator[tuple[int, str]]:
    """Yield (end, dtype) of every run of neighbours with one dtype."""
    for dtype, members in groupby(tensors, key=lambda tensor: tensor.dtype):
        yield list(members)[-1].end, dtype
