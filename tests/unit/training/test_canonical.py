from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from training.canonical import canonicalise
from training.errors import AdapterUnreadable

CONFIG = {"peft_type": "LORA", "r": 2, "target_modules": ["v_proj", "q_proj"], "base_model_name_or_path": "/somewhere"}
TENSORS = {"b.lora_A.weight": torch.ones(2, 3), "a.lora_B.weight": torch.zeros(3, 2)}


def peft_directory(path: Path, config: dict[str, object], tensors: dict[str, torch.Tensor]) -> Path:
    path.mkdir()
    (path / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, path / "adapter_model.safetensors", {"format": "pt", "written_by": path.name})
    (path / "README.md").write_text("made on some machine")
    return path


def canonical(source: Path) -> Path:
    target = source.with_name(source.name + "-canonical")
    target.mkdir()
    canonicalise(source, target)
    return target


def test_order_paths_and_metadata_do_not_show(tmp_path: Path) -> None:
    other = dict(reversed(CONFIG.items())) | {"target_modules": ["q_proj", "v_proj"], "base_model_name_or_path": "/x"}
    one = canonical(peft_directory(tmp_path / "one", dict(CONFIG), TENSORS))
    two = canonical(peft_directory(tmp_path / "two", other, dict(reversed(TENSORS.items()))))
    assert sorted(file.name for file in one.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_the_weights_stay_as_they_are(tmp_path: Path) -> None:
    loaded = load_file(canonical(peft_directory(tmp_path / "one", dict(CONFIG), TENSORS)) / "adapter_model.safetensors")
    assert loaded.keys() == TENSORS.keys()
    assert all(torch.equal(loaded[name], TENSORS[name]) for name in TENSORS)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    source = peft_directory(tmp_path / "one", dict(CONFIG), TENSORS)
    (source / name).unlink()
    with pytest.raises(AdapterUnreadable) as caught:
        canonical(source)
    assert caught.value.field == name


@pytest.mark.parametrize("text", ["nothing", "[]"])
def test_a_damaged_configuration_is_refused(tmp_path: Path, text: str) -> None:
    source = peft_directory(tmp_path / "one", dict(CONFIG), TENSORS)
    (source / "adapter_config.json").write_text(text)
    with pytest.raises(AdapterUnreadable) as caught:
        canonical(source)
    assert caught.value.field == "adapter_config.json"
