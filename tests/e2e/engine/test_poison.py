"""An adapter that would break the engine for everybody is never published; the engine's own check is a unit test."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from registry.errors import AdapterInvalid
from registry.manifest import WEIGHTS_FILE, Manifest

Publish = Callable[..., Awaitable[Manifest]]


def poisoned(source: Path, target: Path, change: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]) -> Path:
    shutil.copytree(source, target)
    weights = load_file(target / WEIGHTS_FILE)
    save_file({name: change(value) for name, value in weights.items()}, target / WEIGHTS_FILE)
    return target


async def complete(engine: httpx.AsyncClient, model: str) -> httpx.Response:
    body = {"model": model, "prompt": "The capital of France is", "max_tokens": 6, "temperature": 0}
    return await engine.post("/v1/completions", json=body)


@pytest.mark.parametrize("value", [float("nan"), 1e30])
async def test_poisonous_weights_are_not_published_and_the_base_answers_as_before(
    value: float, engine: httpx.AsyncClient, publish: Publish, adapter_directories: list[Path], tmp_path: Path
) -> None:
    before = (await complete(engine, "base")).json()["choices"][0]["text"]
    directory = poisoned(adapter_directories[0], tmp_path / "poison", lambda array: np.full_like(array, value))
    with pytest.raises(AdapterInvalid, match="not finite"):
        await publish(directory, user=f"poisoner-{value:.0f}")
    assert (await complete(engine, "base")).json()["choices"][0]["text"] == before


async def test_tensors_of_another_size_are_not_published(
    publish: Publish, adapter_directories: list[Path], tmp_path: Path
) -> None:
    def halve(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        side = 0 if array.shape[0] > array.shape[1] else 1
        return np.ascontiguousarray(np.take(array, range(array.shape[side] // 2), axis=side))

    directory = poisoned(adapter_directories[1], tmp_path / "small", halve)
    with pytest.raises(AdapterInvalid, match="features"):
        await publish(directory, user="other-base")
