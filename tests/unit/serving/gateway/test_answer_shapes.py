"""What callers have engines compile and look at for every token: bounded before any engine sees it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from serving.gateway.answer_shapes import check_shape
from serving.gateway.schemas import ChatRequest, QueryRequest


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


HOSTILE: dict[str, Any] = {
    "many strings": {"type": "array", "minItems": 1_000_000, "items": {"type": "string"}},
    "a long string": {"type": "string", "maxLength": 10**9},
    "a number that is none": {"type": "string", "minLength": float("nan")},
    "many properties": {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(5000)}},
    "many choices": {"enum": [f"choice {n}" for n in range(5000)]},
    "long choices": {"enum": ["x" * 10_000, "y" * 10_001]},
    "depth": nested(60),
    "repetitions of repetitions": {"type": "string", "pattern": "^((a{1,64}){1,64}){1,64}$"},
    "a pattern as a name": {"type": "object", "patternProperties": {"^(a{9,99}){9,99}$": {}}},
    "a long pattern": {"type": "string", "pattern": "a|" * 500},
    "stars": {"type": "string", "pattern": "(a*)*" * 20},
    "a distant reference": {"$ref": "http://elsewhere.example/schema.json"},
    "hidden in a list": {"anyOf": [{"allOf": [{"items": {"maxItems": 10**12}}]}]},
}
HARMLESS: list[dict[str, Any]] = [
    {},
    nested(5),
    {"type": "object", "properties": {"mood": {"enum": ["good", "bad"]}}, "required": ["mood"]},
    {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$", "maxLength": 10},
    {"$defs": {"node": {"type": "array", "items": {"$ref": "#/$defs/node"}}}, "$ref": "#/$defs/node"},
    {"type": "object", "properties": {"pattern": {"type": "string"}, "maxItems": {"type": "integer"}}},
]


@pytest.mark.parametrize("schema", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_schema_that_would_keep_the_engine_busy_is_refused_wherever_it_stands(schema: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"more than|at most|deeper|repeats|refer"):
        check_shape(schema)
    with pytest.raises(ValidationError, match="schema"):
        QueryRequest.model_validate({"question": "Who?", "schema": schema})
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    tool = {"type": "function", "function": {"name": "a", "parameters": schema}}
    for field, value in (("response_format", form), ("tools", [tool])):
        with pytest.raises(ValidationError, match=field):
            ChatRequest.model_validate({"model": "users/a", "messages": [{"role": "user"}], field: value})


@pytest.mark.parametrize("schema", HARMLESS)
def test_what_callers_ask_for_passes(schema: dict[str, Any]) -> None:
    assert QueryRequest.model_validate({"question": "Who?", "schema": schema}).answer_schema == schema


@pytest.mark.parametrize(
    "hostile",
    [
        {"stop": [f"s{n}" for n in range(17)]},
        {"stop": "x" * 201},
        {"stop": ["x" * 201]},
        {"logit_bias": {str(n): 1.0 for n in range(1025)}},
        {"tools": [{}] * 65},
        {"response_format": {"type": "structural_tag", "structures": []}},
        {"response_format": {"type": "regex", "regex": "(a+)+"}},
        {"response_format": {}},
    ],
)
def test_what_is_looked_at_for_every_token_is_bounded(hostile: dict[str, Any]) -> None:
    chat = {"model": "users/a", "messages": [{"role": "user", "content": "hi"}]}
    ChatRequest.model_validate({**chat, "stop": ["\n"] * 16, "logit_bias": {"1": -100.0}})
    with pytest.raises(ValidationError, match=next(iter(hostile))):
        ChatRequest.model_validate({**chat, **hostile})
