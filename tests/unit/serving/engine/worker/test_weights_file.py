"""Reading an adapter: what is verified is what is used, and nothing in a file can hurt the process."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from registry.manifest import CONFIG_FILE, WEIGHTS_FILE
from serving.engine.worker.weights_file import read_adapter
from serving.errors import AdapterDamaged, AdapterUnfit
from tests.support.adapters import with_header, write_adapter


def digests(directory: Path) -> dict[str, str]:
    return {name: hashlib.sha256((directory / name).read_bytes()).hexdigest() for name in (CONFIG_FILE, WEIGHTS_FILE)}


def test_tensors_are_those_of_the_file(tmp_path: Path) -> None:
    write_adapter(tmp_path, seed=3)
    files = read_adapter(tmp_path, digests(tmp_path))
    expected = load_file(tmp_path / WEIGHTS_FILE)
    assert files.tensors.keys() == expected.keys()
    assert all(torch.equal(files.tensors[name], expected[name]) for name in expected)
    assert files.config["r"] == 4
    assert files.size_bytes == sum(tensor.nbytes for tensor in expected.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_dtype_that_adapters_have_is_read(tmp_path: Path, dtype: torch.dtype) -> None:
    write_adapter(tmp_path)
    save_file({"one": torch.arange(6, dtype=dtype).view(2, 3)}, tmp_path / WEIGHTS_FILE)
    tensor = read_adapter(tmp_path, digests(tmp_path)).tensors["one"]
    assert (tensor.dtype, tensor.tolist()) == (dtype, [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])


def test_writing_to_the_tensors_changes_no_file(tmp_path: Path) -> None:
    write_adapter(tmp_path)
    before = digests(tmp_path)
    for tensor in read_adapter(tmp_path, before).tensors.values():
        tensor.zero_()
    assert digests(tmp_path) == before


def test_the_file_may_vanish_after_it_was_read(tmp_path: Path) -> None:
    write_adapter(tmp_path)
    files = read_adapter(tmp_path, digests(tmp_path))
    (tmp_path / WEIGHTS_FILE).write_bytes(b"")
    (tmp_path / WEIGHTS_FILE).unlink()
    assert all(bool(torch.isfinite(tensor).all()) for tensor in files.tensors.values())


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "longer"])
def test_damage_since_the_digest_was_taken_is_named(tmp_path: Path, name: str, damage: str) -> None:
    write_adapter(tmp_path)
    stated, path = digests(tmp_path), tmp_path / name
    sound = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(
            {"flip": sound[:-1] + bytes([sound[-1] ^ 1]), "cut": sound[:-9], "longer": sound + b"\0"}[damage]
        )
    with pytest.raises(AdapterDamaged) as refused:
        read_adapter(tmp_path, stated)
    assert refused.value.field == name


def entry(**changes: Any) -> dict[str, Any]:
    return {"one": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x01",
        (1 << 60).to_bytes(8, "little") + b"{}",
        with_header({}, b""),
        with_header({}, b"12345678"),
        with_header(b"{not json", b"12345678"),
        with_header([1, 2], b"12345678"),
        with_header(entry(dtype="I64"), b"12345678"),
        with_header(entry(shape=[3]), b"12345678"),
        with_header(entry(data_offsets=[0, 80]), b"12345678"),
        with_header(entry(data_offsets=[-8, 0]), b"12345678"),
        with_header(entry(data_offsets="x"), b"12345678"),
        with_header({"one": None}, b"12345678"),
    ],
    ids=range(13),
)
def test_a_file_that_lies_about_itself_is_refused(tmp_path: Path, raw: bytes) -> None:
    write_adapter(tmp_path)
    (tmp_path / WEIGHTS_FILE).write_bytes(raw)
    with pytest.raises(AdapterDamaged):
        read_adapter(tmp_path, digests(tmp_path))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e4])
def test_values_that_would_poison_the_engine_are_refused_by_name(tmp_path: Path, value: float) -> None:
    write_adapter(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS_FILE)
    name = sorted(tensors)[5]
    tensors[name][0, 0] = value
    save_file(tensors, tmp_path / WEIGHTS_FILE)
    with pytest.raises(AdapterUnfit, match=name):
        read_adapter(tmp_path, digests(tmp_path))


@pytest.mark.parametrize("raw", ["{", "[]"])
def test_a_configuration_that_is_no_object_is_refused(tmp_path: Path, raw: str) -> None:
    write_adapter(tmp_path)
    (tmp_path / CONFIG_FILE).write_text(raw)
    with pytest.raises(AdapterDamaged) as refused:
        read_adapter(tmp_path, digests(tmp_path))
    assert refused.value.field == CONFIG_FILE


def test_a_tensor_off_its_alignment_is_still_read(tmp_path: Path) -> None:
    write_adapter(tmp_path)
    data = b"\0" + torch.tensor([1.5, 2.5]).numpy().tobytes()
    header = {"one": {"dtype": "F32", "shape": [2], "data_offsets": [1, 9]}}
    (tmp_path / WEIGHTS_FILE).write_bytes(with_header(json.loads(json.dumps(header)), data))
    assert read_adapter(tmp_path, digests(tmp_path)).tensors["one"].tolist() == [1.5, 2.5]
