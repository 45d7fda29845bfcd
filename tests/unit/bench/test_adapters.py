"""The adapters that benchmarks make: publishable, none like another, repeatable."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.adapters import Factory, Recipe
from registry.client import draft_from_directory
from registry.manifest import CONFIG_FILE, WEIGHTS_FILE, Owner
from tests.support.adapters import BASE, BASE_CONFIG

OWNER = Owner(tenant="bench", user="ann")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    directory = tmp_path / "base"
    directory.mkdir()
    (directory / "config.json").write_bytes(BASE_CONFIG)
    return directory


@pytest.mark.parametrize(
    "recipe", [Recipe(), Recipe(rank=1, modules=("q_proj",), dtype="float16")], ids=["whole", "small"]
)
def test_a_written_adapter_can_be_published(base: Path, tmp_path: Path, recipe: Recipe) -> None:
    factory = Factory(base, recipe)
    directory = factory.write(tmp_path / "one", seed=1)
    draft = draft_from_directory(directory, owner=OWNER, base=BASE, base_directory=base)
    assert (draft.lora.rank, draft.lora.target_modules) == (recipe.rank, tuple(sorted(recipe.modules)))
    assert (directory / WEIGHTS_FILE).stat().st_size == factory.size_bytes


def test_seeds_decide_the_bytes(base: Path, tmp_path: Path) -> None:
    factory = Factory(base, Recipe(rank=2))
    one, again, other = (
        (factory.write(tmp_path / name, seed=seed) / WEIGHTS_FILE).read_bytes()
        for name, seed in (("one", 1), ("again", 1), ("other", 2))
    )
    assert one == again
    assert one != other


def test_the_configuration_names_rank_and_layers(base: Path, tmp_path: Path) -> None:
    directory = Factory(base, Recipe(rank=4, modules=("v_proj", "q_proj"))).write(tmp_path / "one", seed=1)
    config = json.loads((directory / CONFIG_FILE).read_text())
    assert (config["r"], config["lora_alpha"], config["target_modules"]) == (4, 8, ["q_proj", "v_proj"])
