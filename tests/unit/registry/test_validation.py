"""Hostile and broken adapters are refused, with the place and the reason; good ones are not."""

from __future__ import annotations

import json
import math
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.canonical import canonical_json
from registry.artifact.findings import MAX_FINDINGS, ValidationReport
from registry.artifact.peft_config import canonical_config, parse_config
from registry.artifact.safetensors_header import MAX_HEADER_BYTES, parse_header
from registry.artifact.tensors import check_tensors, inspect_tensors
from registry.artifact.validation import Limits, WeightsInspector, check_declaration, check_draft, check_file_names
from registry.client import draft_from_directory
from registry.errors import AdapterInvalid
from registry.manifest import (
    CONFIG_FILE,
    MAX_WEIGHT,
    WEIGHTS_FILE,
    BaseShape,
    Draft,
    Lineage,
    LoraShape,
    ManifestFile,
    Owner,
)
from tests.support.adapters import (
    BASE,
    BASE_CONFIG,
    MODULES,
    lora_shapes,
    peft_config,
    poisoned,
    safetensors_bytes,
    tensor_name,
    with_header,
    write_adapter,
)

OWNER = Owner(tenant="default", user="ann")
SHAPE = LoraShape(rank=4, alpha=8.0, target_modules=tuple(sorted(MODULES)))
A, B = tensor_name(0, "q_proj", "A"), tensor_name(0, "q_proj", "B")


def draft(directory: Path) -> Draft:
    return draft_from_directory(directory, owner=OWNER, base=BASE)


def entry(begin: Any = 0, end: Any = 16, *, dtype: Any = "F32", shape: Any = (2, 2)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape) if isinstance(shape, tuple) else shape, "data_offsets": [begin, end]}


def parse(data: bytes) -> Any:
    return parse_header(data, size_bytes=len(data))


def test_an_adapter_as_peft_writes_it_is_accepted(tmp_path: Path) -> None:
    found = draft(write_adapter(tmp_path / "a"))
    assert found.lora == SHAPE
    assert {file.path for file in found.files} == {CONFIG_FILE, WEIGHTS_FILE}


def test_one_adapter_has_one_digest_whatever_the_hash_order_and_the_machine(tmp_path: Path) -> None:
    shuffled = random.Random(1).sample(MODULES, len(MODULES))
    one = draft(write_adapter(tmp_path / "a"))
    two = draft(write_adapter(tmp_path / "b", target_modules=shuffled, base_model_name_or_path="/elsewhere"))
    assert one.content_digest == two.content_digest
    assert draft(write_adapter(tmp_path / "c", seed=1)).content_digest != one.content_digest


def test_drafting_changes_no_file(tmp_path: Path) -> None:
    directory = write_adapter(tmp_path / "a")
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    draft(directory)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    directory = write_adapter(tmp_path / "a")
    (directory / name).unlink()
    with pytest.raises(AdapterInvalid, match="is missing") as caught:
        draft(directory)
    assert caught.value.field == name


def test_the_model_card_that_peft_writes_is_passed_over(tmp_path: Path) -> None:
    directory = write_adapter(tmp_path / "a")
    plain = draft(directory)
    (directory / "README.md").write_text("---\nlibrary_name: peft\n---\n")
    assert draft(directory) == plain


def test_only_a_file_can_be_a_model_card(tmp_path: Path) -> None:
    directory = write_adapter(tmp_path / "a")
    (directory / "README.md").mkdir()
    with pytest.raises(AdapterInvalid, match=r"README\.md does not belong"):
        draft(directory)
    (directory / "README.md").rmdir()
    (directory / "README.md").symlink_to(directory / CONFIG_FILE)
    with pytest.raises(AdapterInvalid, match=r"README\.md does not belong"):
        draft(directory)


def test_a_publisher_that_declares_a_model_card_is_refused() -> None:
    with pytest.raises(AdapterInvalid, match=r"README\.md does not belong"):
        check_file_names([CONFIG_FILE, WEIGHTS_FILE, "README.md"])


def test_a_pickle_is_answered_with_how_to_save_without_one(tmp_path: Path) -> None:
    directory = write_adapter(tmp_path / "a")
    (directory / WEIGHTS_FILE).rename(directory / "adapter_model.bin")
    with pytest.raises(AdapterInvalid, match="safe_serialization=True") as caught:
        draft(directory)
    assert caught.value.field == WEIGHTS_FILE


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"use_dora": True}, "adapter_config.json: use_dora: DoRA adapters cannot share a batch with others"),
        ({"r": 9}, "adapter_config.json: r: rank 9 is above the limit of 8 (LORRY_REGISTRY_MAX_RANK; "),
        ({"r": 10**300}, "is above the limit of 8 (LORRY_REGISTRY_MAX_RANK; "),
        ({"bias": "all"}, "adapter_config.json: bias must be none, not 'all'"),
        ({"moons": 1}, "adapter_config.json: moons is not a feature"),
    ],
)
def test_a_refused_field_reads_as_a_sentence(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(AdapterInvalid) as caught:
        parse_config(json.dumps(peft_config(**changes)).encode(), max_rank=8)
    assert told in caught.value.message
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("name", ["readme.md", "README.txt", "pickle.bin", "adapter_model.bin", "model.py"])
def test_an_extra_file_is_named(tmp_path: Path, name: str) -> None:
    directory = write_adapter(tmp_path / "a")
    (directory / name).write_text("x")
    with pytest.raises(AdapterInvalid, match="does not belong") as caught:
        draft(directory)
    assert caught.value.field == name


def test_an_extra_folder_is_refused(tmp_path: Path) -> None:
    (write_adapter(tmp_path / "a") / "other").mkdir()
    with pytest.raises(AdapterInvalid, match="other"):
        draft(tmp_path / "a")


def test_what_is_no_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterInvalid, match="not a directory"):
        draft(tmp_path / "nowhere")


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
def test_an_empty_file_is_refused(tmp_path: Path, name: str) -> None:
    (write_adapter(tmp_path / "a") / name).write_bytes(b"")
    with pytest.raises(AdapterInvalid) as caught:
        draft(tmp_path / "a")
    assert caught.value.field == name


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("peft_type", "IA3"),
        ("peft_type", None),
        ("task_type", "SEQ_CLS"),
        ("use_dora", True),
        ("alora_invocation_tokens", [1, 2]),
        ("lora_bias", True),
        ("bias", "all"),
        ("bias", None),
        ("modules_to_save", ["lm_head"]),
        ("init_lora_weights", "pissa"),
        ("init_lora_weights", "pissa_niter_16"),
        ("init_lora_weights", "olora"),
        ("init_lora_weights", "loftq"),
        ("init_lora_weights", ["pissa"]),
        ("rank_pattern", {"q_proj": 8}),
        ("alpha_pattern", {"(a+)+$": 8}),
        ("trainable_token_indices", [1]),
        ("target_parameters", ["experts"]),
        ("layer_replication", [[0, 1]]),
        ("use_qalora", True),
        ("use_bdlora", {"x": 1}),
        ("fan_in_fan_out", True),
        ("megatron_config", {"x": 1}),
        ("loftq_config", {"bits": 4}),
        ("a_feature_of_next_year", True),
        ("vllm_lora_scaling_factor", 3.0),
        ("use_rslora", "yes"),
        ("r", 0),
        ("r", -1),
        ("r", 65),
        ("r", 4.0),
        ("r", True),
        ("r", "4"),
        ("r", None),
        ("lora_alpha", 0),
        ("lora_alpha", -8),
        ("lora_alpha", "8"),
        ("lora_alpha", None),
        ("lora_alpha", True),
        ("lora_alpha", 10**400),
        ("target_modules", "all-linear"),
        ("target_modules", r".*\.(q|v)_proj"),
        ("target_modules", []),
        ("target_modules", None),
        ("target_modules", ["q_proj", "lm_head"]),
        ("target_modules", ["embed_tokens"]),
        ("target_modules", ["q_proj", 3]),
    ],
)
def test_a_configuration_that_cannot_be_served_is_refused_by_field(field: str, value: Any) -> None:
    with pytest.raises(AdapterInvalid) as caught:
        parse_config(json.dumps(peft_config(**{field: value})).encode(), max_rank=64)
    assert caught.value.field == f"{CONFIG_FILE}:{field}"
    assert field in caught.value.message


def test_fully_qualified_target_modules_are_accepted() -> None:
    config = peft_config(target_modules=["model.layers.0.mlp.down_proj", "model.layers.1.self_attn.q_proj"])
    assert parse_config(json.dumps(config).encode(), max_rank=64).target_modules == ("down_proj", "q_proj")


def test_rank_stabilised_lora_is_accepted() -> None:
    parse_config(json.dumps(peft_config(use_rslora=True)).encode(), max_rank=64)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b"\xff\xfe{}",
        b'{"r": 1, "r": 2}',
        b'{"r": NaN}',
        b'{"r": Infinity}',
        b'{"r": "\\ud800"}',
        b"[" * 200_000,
        b'{"a": ' * 100_000 + b"1" + b"}" * 100_000,
        b'{"r": ' + b"9" * 5000 + b"}",
        b" " * (1 << 20) + b"{}",
    ],
    ids=lambda data: repr(data[:24]),
)
def test_a_configuration_that_is_no_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(AdapterInvalid) as caught:
        canonical_config(data)
    assert caught.value.field == CONFIG_FILE
    assert len(caught.value.message) < 400


@given(st.permutations(MODULES), st.text(max_size=20), st.randoms())
def test_canonical_bytes_do_not_depend_on_order_or_whereabouts(modules: list[str], base: str, rng: Any) -> None:
    expected = canonical_config(json.dumps(peft_config()).encode())
    pairs = list(peft_config(target_modules=modules, base_model_name_or_path=base).items())
    rng.shuffle(pairs)
    found = canonical_config(json.dumps(dict(pairs)).encode())
    assert found == expected
    assert canonical_config(found) == found


def test_a_header_gives_every_tensor_in_the_order_of_its_bytes() -> None:
    data = with_header({"b": entry(16, 32), "a": entry(0, 16)}, bytes(32))
    header = parse(data)
    assert [tensor.name for tensor in header.tensors] == ["a", "b"]
    assert header.data_offset == len(data) - 32


@pytest.mark.parametrize(
    ("header", "data_bytes", "reason"),
    [
        ({"a": entry(0, 16), "b": entry(8, 24)}, 24, "overlaps"),
        ({"a": entry(0, 16), "b": entry(0, 16)}, 16, "overlaps"),
        ({"a": entry(0, 16), "b": entry(20, 36)}, 36, "gap"),
        ({"a": entry(4, 20)}, 20, "gap"),
        ({"a": entry()}, 20, "declares 16 bytes"),
        ({"a": entry()}, 12, "declares 16 bytes"),
        ({"a": entry(16, 0)}, 16, "spans"),
        ({"a": entry(shape=(2, 3))}, 16, "spans"),
        ({"a": entry(shape=(1 << 40, 1 << 40))}, 16, "shape"),
        ({"a": entry(shape=(0, 4))}, 16, "shape"),
        ({"a": entry(shape=(-2, -2))}, 16, "shape"),
        ({"a": entry(shape=(2.0, 2))}, 16, "shape"),
        ({"a": entry(shape=(True, 4))}, 16, "shape"),
        ({"a": entry(shape="22")}, 16, "shape"),
        ({"a": entry(shape=(1,) * 9)}, 16, "shape"),
        ({"a": entry(begin=-16, end=0)}, 16, "data_offsets"),
        ({"a": entry(begin=0, end=1 << 70)}, 16, "data_offsets"),
        ({"a": entry() | {"data_offsets": [0]}}, 16, "data_offsets"),
        ({"a": entry(dtype="F64")}, 16, "dtype"),
        ({"a": entry(dtype="I8")}, 16, "dtype"),
        ({"a": entry(dtype=["F32"])}, 16, "dtype"),
        ({"a": entry() | {"extra": 1}}, 16, "exactly"),
        ({"a": {"dtype": "F32"}}, 16, "exactly"),
        ({"a": 3}, 16, "exactly"),
        ({"__metadata__": {"a": 1}, "a": entry()}, 16, "metadata"),
        ({"__metadata__": [], "a": entry()}, 16, "metadata"),
        ({}, 0, "no tensors"),
        ({"__metadata__": {}}, 0, "no tensors"),
        ([], 0, "not a JSON object"),
        (b'{"a": 1, "a": 2}', 0, "repeated"),
        (b'{"a": "\\ud800"}', 0, "not JSON"),
        (b"\xff\xff", 0, "not JSON"),
        (b"[" * 100_000, 0, "not JSON"),
        (b"PK\x03\x04", 0, "not JSON"),
    ],
)
def test_a_hostile_header_is_refused_with_the_reason(header: Any, data_bytes: int, reason: str) -> None:
    with pytest.raises(AdapterInvalid, match=reason) as caught:
        parse(with_header(header, bytes(data_bytes)))
    assert str(caught.value.field).startswith(WEIGHTS_FILE)


@pytest.mark.parametrize("length", [0, 1, MAX_HEADER_BYTES + 1, (1 << 64) - 1])
def test_a_header_length_out_of_range_is_refused_before_it_is_read(length: int) -> None:
    with pytest.raises(AdapterInvalid, match="header of"):
        parse(length.to_bytes(8, "little") + b"{}")


@pytest.mark.parametrize("data", [b"", b"1234567", (100).to_bytes(8, "little") + b"{}"])
def test_a_truncated_file_is_refused(data: bytes) -> None:
    with pytest.raises(AdapterInvalid):
        parse(data)


@given(st.binary(max_size=300))
def test_random_bytes_are_refused_and_never_crash(data: bytes) -> None:
    with pytest.raises(AdapterInvalid):
        parse(data)


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_header_with_one_changed_byte_is_refused_or_still_consistent(position: int, value: int) -> None:
    data = bytearray(safetensors_bytes(lora_shapes(layers=1, modules=["q_proj"])))
    end = 8 + int.from_bytes(data[:8], "little")
    data[position % end] = value
    try:
        header = parse(bytes(data))
    except AdapterInvalid:
        return
    assert header.data_offset + header.tensors[-1].end == len(data)


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.lm_head.lora_A.weight",
        "base_model.model.model.embed_tokens.lora_embedding_A",
        A.replace("lora_A", "lora_magnitude_vector"),
        A.replace("lora_A.weight", "lora_A.bias"),
        A.replace("layers.0", "layers.00"),
        A.replace("layers.0", "layers.-1"),
        A.replace("layers.0", "layers.99999"),
        A.replace("layers.0", "layers.\u0661"),
        A.replace("self_attn.q_proj", "mlp.q_proj"),
        A + "\n",
        "x" + A,
        "../../etc/passwd",
        "nul\x00byte",
        "",
    ],
)
def test_a_tensor_that_is_no_lora_weight_of_a_linear_layer_is_refused(name: str) -> None:
    shapes = lora_shapes()
    shapes[name] = (4, 8)
    with pytest.raises(AdapterInvalid, match="not a LoRA weight") as caught:
        check_tensors(parse(safetensors_bytes(shapes)), shape=SHAPE)
    assert str(caught.value.field).isascii()
    assert str(caught.value.field).isprintable()


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        ({A: (4, 8)}, "counterpart"),
        ({B: (8, 4)}, "counterpart"),
        ({A: (5, 8), B: (8, 5)}, "does not fit rank 4"),
        ({A: (4, 8), B: (4, 8)}, "does not fit rank 4"),
        ({A: (4, 8, 1), B: (8, 4)}, "two dimensions"),
        ({A: (4,), B: (8, 4)}, "two dimensions"),
    ],
)
def test_a_pair_that_does_not_have_the_declared_rank_is_refused(shapes: dict[str, Any], reason: str) -> None:
    shape = SHAPE.model_copy(update={"target_modules": ("q_proj",)})
    with pytest.raises(AdapterInvalid, match=reason):
        check_tensors(parse(safetensors_bytes(shapes)), shape=shape)


def test_tensors_of_a_module_that_the_configuration_does_not_name_are_refused() -> None:
    shape = SHAPE.model_copy(update={"target_modules": ("v_proj",)})
    with pytest.raises(AdapterInvalid, match="target_modules does not name"):
        check_tensors(parse(safetensors_bytes({A: (4, 8), B: (8, 4)})), shape=shape)


def test_a_module_that_the_configuration_names_must_have_tensors() -> None:
    with pytest.raises(AdapterInvalid, match="no tensors for down_proj"):
        check_tensors(parse(safetensors_bytes({A: (4, 8), B: (8, 4)})), shape=SHAPE)


LIMITS = Limits(max_adapter_bytes=1000, max_rank=64)
FILES = (
    ManifestFile(path=CONFIG_FILE, size_bytes=10, sha256="a" * 64),
    ManifestFile(path=WEIGHTS_FILE, size_bytes=10, sha256="b" * 64),
)


def declared(**changes: Any) -> Draft:
    whole = Draft(owner=OWNER, base=BASE, lora=SHAPE, files=FILES, lineage=Lineage(), config=peft_config())
    return whole.model_copy(update=changes)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"files": FILES[:1]}, WEIGHTS_FILE),
        ({"files": FILES[1:]}, CONFIG_FILE),
        ({"files": ()}, CONFIG_FILE),
        ({"files": (*FILES, FILES[0])}, "files"),
        ({"files": (FILES[0], FILES[1].model_copy(update={"size_bytes": 991}))}, "files"),
        ({"lora": SHAPE.model_copy(update={"rank": 65})}, "lora.rank"),
        ({"lora": SHAPE.model_copy(update={"target_modules": ("lm_head",)})}, "lora.target_modules"),
        ({"lora": SHAPE.model_copy(update={"target_modules": ()})}, "lora.target_modules"),
    ],
)
def test_a_draft_that_no_upload_could_make_valid_is_refused_before_upload(changes: Any, field: str) -> None:
    with pytest.raises(AdapterInvalid) as caught:
        check_declaration(declared(**changes), limits=LIMITS)
    assert caught.value.field == field


def test_a_draft_within_the_limits_is_accepted() -> None:
    config = check_draft(declared(), limits=LIMITS)
    assert config == canonical_config(json.dumps(peft_config()).encode())


def test_every_refused_field_of_a_configuration_is_named_not_only_the_first() -> None:
    wrong = peft_config(r=0, lora_alpha=-1, use_dora=True, bias="all")
    with pytest.raises(AdapterInvalid) as caught:
        check_draft(declared(config=wrong), limits=LIMITS)
    fields = {finding["field"] for finding in caught.value.details["findings"]}
    assert fields == {f"{CONFIG_FILE}:{name}" for name in ("r", "lora_alpha", "use_dora", "bias")}


def inspect(data: bytes, *, cuts: list[int] | None = None, size_bytes: int | None = None) -> WeightsInspector:
    """Show a file to an inspector, cut where the test says."""
    inspector = WeightsInspector(
        size_bytes=len(data) if size_bytes is None else size_bytes, shape=SHAPE, base=BaseShape.parse(BASE_CONFIG)
    )
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts or []), len(data)]
    for begin, end in pairwise(edges):
        inspector.update(memoryview(data)[begin:end])
    return inspector


@given(st.lists(st.integers(0, 1 << 20), max_size=12))
def test_a_good_file_is_accepted_however_it_is_cut(cuts: list[int]) -> None:
    inspector = inspect(safetensors_bytes(lora_shapes()), cuts=cuts)
    assert inspector.finish() == []
    assert len(inspector.pairs) == 14


def test_a_header_that_was_found_sound_is_not_taken_for_another_lora_base_or_size() -> None:
    data = safetensors_bytes(lora_shapes())
    base = BaseShape.parse(BASE_CONFIG)
    assert inspect(data).finish() == inspect(data).finish() == []

    def codes(size_bytes: int, shape: LoraShape, base: BaseShape) -> set[str]:
        inspector = WeightsInspector(size_bytes=size_bytes, shape=shape, base=base)
        inspector.update(data)
        return {finding.code for finding in inspector.finish()}

    for _ in range(2):
        assert codes(len(data), SHAPE, base) == set()
        assert codes(len(data), SHAPE.model_copy(update={"rank": SHAPE.rank + 1}), base) == {"rank"}
        assert codes(len(data), SHAPE, base.model_copy(update={"hidden_size": 16})) == {"other-features"}
        assert codes(len(data) + 4, SHAPE, base) == {"header"}


@given(
    st.lists(st.integers(0, 1 << 20), max_size=12),
    st.integers(0, 14 * (4 * 8 * 2) - 1),
    st.sampled_from([math.nan, math.inf, -math.inf, 1e30, -100.5]),
)
def test_one_impossible_value_is_found_wherever_it_is_and_however_the_file_is_cut(
    cuts: list[int], at: int, value: float
) -> None:
    (finding,) = inspect(poisoned(value, at=at), cuts=cuts).finish()
    name = list(lora_shapes())[at // 32]
    assert (finding.code, finding.field) == ("value", f"{WEIGHTS_FILE}:{name}")


@pytest.mark.parametrize(("dtype", "kind"), [("F16", "<f2"), ("BF16", "<u2"), ("F32", "<f4")])
@given(value=st.floats(width=32, allow_nan=True), cuts=st.lists(st.integers(0, 200), max_size=5))
def test_values_of_every_dtype_are_bounded(dtype: str, kind: str, value: float, cuts: list[int]) -> None:
    if dtype == "BF16":
        bits = np.array([value], dtype="<f4").view("<u4")[0] >> np.uint32(16)
        items = np.full(12, bits, dtype=kind)
        stored = float(np.array([int(bits) << 16], dtype="<u4").view("<f4")[0])
    else:
        with np.errstate(over="ignore"):
            items = np.full(12, value, dtype=kind)
        stored = float(items[0])
    data = with_header({"a": {"dtype": dtype, "shape": [3, 4], "data_offsets": [0, items.nbytes]}}, items.tobytes())
    found = {finding.code for finding in inspect(data, cuts=cuts).finish()}
    assert ("value" in found) == (not -MAX_WEIGHT <= stored <= MAX_WEIGHT)


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=5))
def test_any_bytes_are_looked_at_without_a_crash(data: bytes, cuts: list[int]) -> None:
    if data:
        assert inspect(data, cuts=cuts).finish()


@given(st.binary(max_size=64), st.integers(0, 1 << 62))
def test_a_header_that_claims_any_length_is_never_collected(start: bytes, length: int) -> None:
    inspector = WeightsInspector(size_bytes=1 << 40, shape=SHAPE)
    inspector.update(length.to_bytes(8, "little") + start)
    for _ in range(3):
        inspector.update(bytes(1 << 20))
    assert len(inspector._start) <= (1 << 20) + (2 << 20)
    if not 2 <= length <= MAX_HEADER_BYTES:
        assert inspector._start == b""
    assert inspector.finish()


@given(st.integers(0, 10_000), st.integers(0, 255), st.lists(st.integers(0, 1 << 20), max_size=4))
def test_one_changed_byte_anywhere_in_a_header_is_found_or_harmless(position: int, value: int, cuts: list[int]) -> None:
    good = safetensors_bytes(lora_shapes(layers=1))
    data = bytearray(good)
    data[position % (8 + int.from_bytes(good[:8], "little"))] = value
    for finding in inspect(bytes(data), cuts=cuts).finish():
        assert finding.message.isprintable()
        assert finding.field is None or finding.field.isascii()


def test_everything_that_is_wrong_with_the_tensors_is_named() -> None:
    shapes = lora_shapes(modules=["q_proj", "v_proj"])
    shapes["lm_head.weight"] = (2, 2)
    del shapes[tensor_name(1, "v_proj", "B")]
    shapes[tensor_name(0, "q_proj", "A")] = (5, 8)
    _, findings = inspect_tensors(parse(safetensors_bytes(shapes)), shape=SHAPE)
    codes = [finding.code for finding in findings]
    assert sorted(set(codes)) == ["no-counterpart", "no-tensors", "rank", "tensor-name"]
    assert codes.count("no-tensors") == 5


def test_no_more_findings_are_kept_than_a_person_would_read() -> None:
    shapes = {f"strange.{number}": (1, 1) for number in range(500)}
    report = ValidationReport.collect(inspect(safetensors_bytes(shapes)).finish(), checks=())
    assert (len(report.findings), report.more_findings) == (MAX_FINDINGS, 500 + 7 - MAX_FINDINGS)


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"PK\x03\x04", "ZIP"),
        (b"\x80\x04\x95\x00\x00\x00\x00\x01", "pickle"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"GGUF\x03", "GGUF"),
    ],
)
def test_another_format_is_called_by_its_name(start: bytes, kind: str) -> None:
    (finding,) = inspect(start + b"x" * 40).finish()
    assert kind in finding.message


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
def test_a_symbolic_link_is_refused(tmp_path: Path, name: str) -> None:
    directory = write_adapter(tmp_path / "a")
    (directory / name).rename(tmp_path / name)
    (directory / name).symlink_to(tmp_path / name)
    with pytest.raises(AdapterInvalid, match="symbolic link") as caught:
        draft(directory)
    assert caught.value.field == name


def test_an_adapter_with_an_impossible_value_is_named_before_anything_is_sent(tmp_path: Path) -> None:
    directory = write_adapter(tmp_path / "a")
    (directory / WEIGHTS_FILE).write_bytes(poisoned(math.nan))
    with pytest.raises(AdapterInvalid, match="not finite"):
        draft(directory)


def test_a_canonical_configuration_is_canonical_json() -> None:
    data = canonical_config(json.dumps(peft_config()).encode())
    assert data == canonical_json(json.loads(data))
    assert json.loads(data)["base_model_name_or_path"] is None
