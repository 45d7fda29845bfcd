"""What an answer may look like: one JSON string, or an object whose `answers` are strings, with bounds on both.

Nothing else of JSON Schema is taken: what a tenant writes is compiled by an engine that serves everybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_STRING = {"type", "minLength", "maxLength", "enum", "description"}
_LIST = {"type", "items", "minItems", "maxItems", "description"}
_OBJECT = {"type", "properties", "required", "additionalProperties", "description"}
_MOST_CHARACTERS, _MOST_ITEMS, _MOST_CHOICES = 2000, 32, 100


def check_answer_schema(schema: Mapping[str, Any], *, question: str) -> None:
    """Check one question's schema.

    Raises:
        ValueError: naming the question and what it may be.
    """
    if schema.get("type") == "string":
        _check_string(schema, question)
        return
    answers = _mapping(_mapping(schema.get("properties")).get("answers"))
    items = _mapping(answers.get("items"))
    if answers.get("type") != "array" or items.get("type") != "string":
        raise ValueError(f"{question}: answer_schema must be a string, or have `answers`, an array of strings")
    _check_keys(schema, _OBJECT, question)
    _check_keys(answers, _LIST, question)
    if set(_mapping(schema.get("properties"))) != {"answers"} or schema.get("required", ["answers"]) != ["answers"]:
        raise ValueError(f"{question}: answer_schema may hold `answers` alone")
    for key in ("minItems", "maxItems"):
        _check_bound(answers, key, _MOST_ITEMS, question)
    _check_string(items, question)


def _check_string(schema: Mapping[str, Any], question: str) -> None:
    _check_keys(schema, _STRING, question)
    for key in ("minLength", "maxLength"):
        _check_bound(schema, key, _MOST_CHARACTERS, question)
    choices = schema.get("enum", ["any"])
    if not isinstance(choices, list) or not 1 <= len(choices) <= _MOST_CHOICES:
        raise ValueError(f"{question}: answer_schema.enum must be a list of 1 to {_MOST_CHOICES} strings")
    if not all(isinstance(choice, str) and len(choice) <= _MOST_CHARACTERS for choice in choices):
        raise ValueError(f"{question}: answer_schema.enum must hold strings")


def _check_keys(schema: Mapping[str, Any], known: set[str], question: str) -> None:
    if unknown := sorted(map(str, set(schema) - known)):
        raise ValueError(
            f"{question}: answer_schema may not have {unknown[0]!r}; known here: {', '.join(sorted(known))}"
        )


def _check_bound(schema: Mapping[str, Any], key: str, most: int, question: str) -> None:
    value = schema.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise ValueError(f"{question}: answer_schema.{key} must be a whole number from 0 to {most}")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
