"""Weights that are too large for one PUT: how they are cut, and what of them has arrived."""

from __future__ import annotations

from collections.abc import Iterable

from kit.multipart import Part
from registry.manifest import WEIGHTS_FILE, Manifest

AT_ONCE_BYTES = 64 << 20
PART_BYTES = 16 << 20


def comes_in_parts(manifest: Manifest) -> bool:
    """Say whether the weights are too large for one PUT."""
    return weights_bytes(manifest) > AT_ONCE_BYTES


def weights_bytes(manifest: Manifest) -> int:
    """Return the size of the weights."""
    return next(file.size_bytes for file in manifest.files if file.path == WEIGHTS_FILE)


def part_sizes(manifest: Manifest) -> dict[int, int]:
    """Return the size of each part, by its number; they count from 1, and the last one is what is left."""
    size = weights_bytes(manifest)
    return {number: min(PART_BYTES, size - start) for number, start in enumerate(range(0, size, PART_BYTES), start=1)}


def missing_parts(manifest: Manifest, parts: Iterable[Part]) -> list[int]:
    """Return the numbers of the parts that have not arrived whole, in order."""
    sizes = {part.number: part.size_bytes for part in parts}
    return [number for number, size in part_sizes(manifest).items() if sizes.get(number) != size]
