"""Reading an adapter: what is verified is what is used, and nothing in a file can hurt the process."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from registry.manifest import CONFIG_FILE, WEIGHTS_FILE
from serving.engine.worker.weights_file import AdapterFiles, read_adapter
from serving.errors import AdapterDamaged, AdapterUnfit
from tests.support.adapters import with_header, write_adapter
from tests.support.opened import opened_directory


def read(directory: Path) -> AdapterFiles:
    """Read everything that is in the files."""
    with opened_directory(directory) as opened:
        files = read_adapter(opened.files)
    assert files.config is not None
    assert files.tensors
    return files


def test_tensors_are_those_of_the_file(tmp_path: Path) -> None:
    write_adapter(tmp_path, seed=3)
    files = read(tmp_path)
    expected = load_file(tmp_path / WEIGHTS_FILE)
    assert files.tensors.keys() == expected.keys()
    assert all(torch.equal(files.tensors[name], expected[name]) for name in expected)
    assert files.config["r"] == 4
    assert files.size_bytes == sum(tensor.nbytes for tensor in expected.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_dtype_that_adapters_have_is_read(tmp_path: Path, dtype: torch.dtype) -> None:
    write_adapter(tmp_path)
    save_file({"one": torch.arange(6, dtype=dtype).view(2, 3)}, tmp_path / WEIGHTS_FILE)
    tensor = read(tmp_path).tensors["one"]
    assert (tensor.dtype, tensor.tolist()) == (dtype, [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])


def test_what_is_read_is_ones_own(tmp_path: Path) -> None:
    with opened_directory(write_adapter(tmp_path)) as opened:
        first = read_adapter(opened.files)
        for tensor in first.tensors.values():
            tensor.zero_()
        second = read_adapter(opened.files)
    assert all(bool(tensor.any()) for tensor in second.tensors.values())


def test_files_of_other_sizes_than_were_opened_are_refused(tmp_path: Path) -> None:
    with opened_directory(write_adapter(tmp_path)) as opened:
        (config, config_bytes), (weights, weights_bytes) = opened.files.sizes
        shorter = replace(opened.files, sizes=((config, config_bytes), (weights, weights_bytes - 64)))
        with pytest.raises(AdapterDamaged, match="not what was opened"):
            read_adapter(shorter)
        with pytest.raises(AdapterDamaged, match="is missing"):
            read_adapter(replace(opened.files, sizes=(("other.json", config_bytes), (weights, weights_bytes))))


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
        read(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e4])
def test_values_that_would_poison_the_engine_are_refused_by_name(tmp_path: Path, value: float) -> None:
    write_adapter(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS_FILE)
    name = sorted(tensors)[5]
    tensors[name][0, 0] = value
    save_file(tensors, tmp_path / WEIGHTS_FILE)
    with pytest.raises(AdapterUnfit, match=name):
        read(tmp_path)


@pytest.mark.parametrize("raw", ["{", "[]"])
def test_a_configuration_that_is_no_object_is_refused(tmp_path: Path, raw: str) -> None:
    write_adapter(tmp_path)
    (tmp_path / CONFIG_FILE).write_text(raw)
    with pytest.raises(AdapterDamaged) as refused:
        read(tmp_path)
    assert refused.value.field == CONFIG_FILE


def test_a_tensor_off_its_alignment_is_still_read(tmp_path: Path) -> None:
    write_adapter(tmp_path)
    data = b"\0" + torch.tensor([1.5, 2.5]).numpy().tobytes()
    header = {"one": {"dtype": "F32", "shape": [2], "data_offsets": [1, 9]}}
    (tmp_path / WEIGHTS_FILE).write_bytes(with_header(json.loads(json.dumps(header)), data))
    assert read(tmp_path).tensors["one"].tolist() == [1.5, 2.5]


def test_the_numbers_are_those_of_the_tensors_in_the_order_of_the_file(tmp_path: Path) -> None:
    write_adapter(tmp_path)
    files = read(tmp_path)
    assert files.dtype is torch.float32
    expected = torch.cat([tensor.flatten() for tensor in files.tensors.values()])
    assert torch.equal(files.numbers(torch.float32), expected)


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), -1e4])
def test_numbers_that_would_poison_the_engine_are_refused_by_the_name_of_their_tensor(
    tmp_path: Path, value: float
) -> None:
    write_adapter(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS_FILE)
    name = sorted(tensors)[3]
    tensors[name][-1, -1] = value
    save_file(tensors, tmp_path / WEIGHTS_FILE)
    with opened_directory(tmp_path) as opened:
        files = read_adapter(opened.files)
    with pytest.raises(AdapterUnfit, match=name):
        files.numbers(torch.float32)


def test_tensors_of_several_dtypes_are_no_one_row_of_numbers(tmp_path: Path) -> None:
    write_adapter(tmp_path)
    save_file({"one": torch.ones(2), "two": torch.ones(2, dtype=torch.float16)}, tmp_path / WEIGHTS_FILE)
    assert read(tmp_path).dtype is None


def test_adapters_of_one_form_differ_in_nothing_but_their_numbers(tmp_path: Path) -> None:
    first, second = (read(write_adapter(tmp_path / str(seed), seed=seed)) for seed in (1, 2))
    others = [
        read(write_adapter(tmp_path / name, **changes))
        for name, changes in (("alpha", {"lora_alpha": 9}), ("rank", {"rank": 2}), ("width", {"hidden": 16}))
    ]
    assert first.form == second.form
    assert len({files.form for files in (first, *others)}) == 4
