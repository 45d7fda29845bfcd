"""Adapters for benchmarks: of any rank, none like another, written fast, published through the registry's API."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from registry.client import RegistryClient, draft_from_directory
from registry.manifest import CONFIG_FILE, WEIGHTS_FILE, BaseIdentity, BaseShape, Manifest, Owner

MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
_PUBLISHED_AT_ONCE = 8
_B_SCALE = 0.05


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What an adapter of a benchmark looks like; its numbers come from a seed."""

    rank: int = 16
    modules: Sequence[str] = MODULES
    dtype: str = "float32"  # or float16


class Factory:
    """Writes adapters of one recipe for one base model: header and configuration once, numbers each time."""

    def __init__(self, base_directory: Path, recipe: Recipe) -> None:
        shape = BaseShape.read(base_directory)
        self._dtype = np.dtype(recipe.dtype)
        tensors: dict[str, tuple[tuple[int, int], float]] = {}  # name → shape, scale
        for layer in range(shape.num_hidden_layers):
            for module in recipe.modules:
                features_in, features_out = shape.features(module)
                block = "self_attn" if module in _ATTENTION else "mlp"
                name = f"base_model.model.model.layers.{layer}.{block}.{module}"
                tensors[f"{name}.lora_A.weight"] = (recipe.rank, features_in), features_in**-0.5
                tensors[f"{name}.lora_B.weight"] = (features_out, recipe.rank), _B_SCALE
        self._scales: list[tuple[int, float]] = []  # (numbers, scale) of each tensor, in the order of the file
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        code, end = {"float32": "F32", "float16": "F16"}[recipe.dtype], 0
        for name, (size, scale) in sorted(tensors.items()):  # by name, as safetensors writes what PEFT saves
            begin, end = end, end + prod(size) * self._dtype.itemsize
            header[name] = {"dtype": code, "shape": list(size), "data_offsets": [begin, end]}
            self._scales.append((prod(size), scale))
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self._header = len(text).to_bytes(8, "little") + text
        self._config = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "r": recipe.rank,
            "lora_alpha": 2 * recipe.rank,
            "bias": "none",
            "target_modules": sorted(recipe.modules),
        }
        self.size_bytes = len(self._header) + end

    def write(self, directory: Path, *, seed: int) -> Path:
        """Write the adapter of `seed` into a new directory; returns the directory."""
        directory.mkdir(parents=True)
        count = sum(numbers for numbers, _ in self._scales)
        numbers = np.random.default_rng(seed).standard_normal(count, dtype=np.float32)
        at = 0
        for size, scale in self._scales:
            numbers[at : at + size] *= scale
            at += size
        (directory / WEIGHTS_FILE).write_bytes(self._header + numbers.astype(self._dtype).tobytes())
        (directory / CONFIG_FILE).write_text(json.dumps(self._config))
        return directory


class Shelf:
    """Publishes adapters, and lays the same files where stock vLLM's filesystem resolver looks, under the same names.

    So one name asks every engine of a benchmark for the same weights.
    """

    def __init__(self, folder: Path, *, registry: RegistryClient, base_directory: Path, base: BaseIdentity) -> None:
        """Use a folder of its own; `base` must be registered already."""
        self.stock_directory = folder / "stock"
        self.stock_directory.mkdir(parents=True)
        self._workspace = folder / "new"
        self._registry = registry
        self._base_directory = base_directory
        self._base = base
        self._written = 0

    async def add(self, count: int, recipe: Recipe | None = None) -> list[str]:
        """Publish `count` new adapters, each of a user of its own; returns their version ids."""
        factory = Factory(self._base_directory, recipe or Recipe())
        gate = asyncio.Semaphore(_PUBLISHED_AT_ONCE)
        numbers = range(self._written, self._written + count)
        self._written += count

        async def one(number: int) -> str:
            async with gate:
                directory = await asyncio.to_thread(factory.write, self._workspace / str(number), seed=number)
                version_id = (await self._publish(directory, user=f"user-{number}")).version_id
                await asyncio.to_thread(self._lay_out, directory, version_id)
                return version_id

        return list(await asyncio.gather(*(one(number) for number in numbers)))

    async def _publish(self, directory: Path, *, user: str) -> Manifest:
        owner = Owner(tenant="bench", user=user)
        draft = await asyncio.to_thread(draft_from_directory, directory, owner=owner, base=self._base)
        return await self._registry.publish(directory, draft=draft)

    def _lay_out(self, directory: Path, version_id: str) -> None:
        """Move the files to the peer; its resolver compares the configuration's base with its ``--model``."""
        target = self.stock_directory / version_id
        target.mkdir()
        os.rename(directory / WEIGHTS_FILE, target / WEIGHTS_FILE)
        config = json.loads((directory / CONFIG_FILE).read_text())
        config["base_model_name_or_path"] = str(self._base_directory)
        (target / CONFIG_FILE).write_text(json.dumps(config))
        shutil.rmtree(directory)
