"""What may not be stored is found in a body before anything parses it."""

from __future__ import annotations

import json

import pytest

from kit.json_guard import is_storable, objection


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (rb'{"a": {"b": "x\ud800"}}', "body.a.b"),
        (rb'{"a": ["\uDFFF"]}', "body.a.0"),
        (rb'{"packages": {"\udc00x": "1"}}', "body.packages"),
        (rb'{"a": "\ude00\ud83d"}', "body.a"),  # the right halves, the wrong way round
        (rb'{"a": "\ud83d\ud83d\ude00"}', "body.a"),
        (rb'{"a": "\\\ud800"}', "body.a"),
        (rb'"\ud83d\\ude00"', "body"),
    ],
)
def test_half_of_a_surrogate_pair_is_refused_by_field(body: bytes, field: str) -> None:
    assert objection(body) == (field, "has half of a surrogate pair, which cannot be stored")


@pytest.mark.parametrize(
    "body",
    [
        rb'{"a": "\ud83d\ude00"}',
        rb'{"\uD83D\uDE00": 1}',
        rb'{"a": "\\ud800 \\u0000 \\\\ud800"}',
        '{"a": "\U0001f600"}'.encode(),
        rb'{"a": "\ud7ff\ue000\u0001"}',
    ],
)
def test_whole_pairs_and_escaped_backslashes_pass(body: bytes) -> None:
    assert objection(body) is None


def test_a_nul_is_refused_by_field() -> None:
    assert objection(rb'{"a": {"b": "\u0000"}}') == ("body.a.b", "has a NUL character, which cannot be stored")
    assert objection(rb'{"a\\\u0000": 1}') == ("body", "has a NUL character, which cannot be stored")


def test_only_nul_and_half_pairs_cannot_be_stored() -> None:
    assert is_storable("a\U0001f600\x01\uffff")
    assert not any(is_storable(text) for text in ("a\x00", "\ud800", "\udfffx"))


@pytest.mark.parametrize("text", ["", "[[[", "\\", '"', '\\"', '"[', "\\\\", '\\\\"]', "a\\nb", '{"[": "]"}'])
def test_brackets_in_strings_are_no_depth(text: str) -> None:
    for levels in (62, 63):
        value: object = {text: text}
        for _ in range(levels):
            value = [text, value, text]
        assert objection(json.dumps(value).encode()) is None
    assert objection(json.dumps([value]).encode()) == ("body", "nests deeper than 64 levels")


def test_more_values_than_any_document_of_ours_has_are_refused() -> None:
    assert objection(b'["' + b"," * 2_000_000 + b'"]') is None
    assert objection(b"[" + b"1," * 1_000_000 + b"1]") is None
    assert objection(b"[" + b"1," * 1_000_001 + b"1]") == ("body", "has more than 1000000 values")
    assert objection(b"[" + b"[]," * 100_001 + b"1]") == ("body", "has more than 100000 lists and objects")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("unit", [b'\\"', b"\\", b'"', b"\\u0000", b"\\ud800", b'{"', b"[", b"]", b'\\\\"'])
@pytest.mark.parametrize("begins", [b"", b'"', b'{"a": "'])
def test_a_body_made_to_keep_the_guard_busy_does_not(begins: bytes, unit: bytes) -> None:
    """One string of escaped quotation marks that never ends took an hour a megabyte; a body may have 32 of them."""
    objection(begins + unit * (4_000_000 // len(unit)))
