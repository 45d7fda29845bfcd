"""How large a JSON Schema may be that shapes an answer: an engine that serves everybody compiles it.

What is bounded is what a compiler multiplies: entries, depth, counts of repetitions, patterns. Whether the schema is
one that the engine understands is for the engine to say.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

MOST_ENTRIES: Final = 2000
MOST_CHARACTERS: Final = 20_000
MOST_DEPTH: Final = 24
MOST_REPETITIONS: Final = 1000
MOST_PATTERN_CHARACTERS: Final = 200
_COUNTS = frozenset({"minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties", "minContains"})
_COUNTED = re.compile(r"\{(\d{0,9})(?:,(\d{0,9}))?\}")
_REPEATED = re.compile(r"[*+]")
_MOST_OPEN_REPETITIONS = 16
_FORMS = frozenset({"text", "json_object", "json_schema"})


def check_shape(schema: Any) -> None:
    """Look at a schema before any engine does.

    Raises:
        ValueError: saying which bound it breaks, or that it refers to something outside of itself.
    """
    characters = 0
    for entries, (depth, name, value) in enumerate(_walk(schema), start=1):
        characters += len(name) + (len(value) if isinstance(value, str) else 0)
        if entries > MOST_ENTRIES:
            raise ValueError(f"has more than {MOST_ENTRIES} entries")
        if characters > MOST_CHARACTERS:
            raise ValueError(f"has more than {MOST_CHARACTERS} characters")
        if depth > MOST_DEPTH:
            raise ValueError(f"nests deeper than {MOST_DEPTH} levels")
        _check_entry(name, value)


def check_response_format(form: Mapping[str, Any]) -> None:
    """Look at an OpenAI `response_format`.

    Raises:
        ValueError: when it is none of text, json_object and json_schema, or its schema breaks a bound.
    """
    if form.get("type") not in _FORMS:
        raise ValueError(f"type must be one of {', '.join(sorted(_FORMS))}")
    check_shape(dict(form))


def _walk(schema: Any) -> Iterator[tuple[int, str, Any]]:
    """Yield (depth, name, value) of everything in a schema; a list's entries have no name."""
    waiting: list[tuple[int, str, Any]] = [(0, "", schema)]
    while waiting:
        depth, name, value = waiting.pop()
        yield depth, name, value
        if isinstance(value, dict):
            waiting += [(depth + 1, str(key), child) for key, child in value.items()]
        elif isinstance(value, list):
            waiting += [(depth + 1, "", child) for child in value]


def _check_entry(name: str, value: Any) -> None:
    if name in _COUNTS and isinstance(value, int | float) and not value <= MOST_REPETITIONS:
        raise ValueError(f"{name} must be at most {MOST_REPETITIONS}")
    if name == "pattern" and isinstance(value, str):
        _check_pattern(value)
    if name == "patternProperties" and isinstance(value, dict):
        for pattern in value:
            _check_pattern(pattern)
    if name in {"$ref", "$dynamicRef"} and isinstance(value, str) and not value.startswith("#"):
        raise ValueError(f"{name} must refer to a place in the schema itself")


def _check_pattern(pattern: str) -> None:
    if len(pattern) > MOST_PATTERN_CHARACTERS:
        raise ValueError(f"a pattern has more than {MOST_PATTERN_CHARACTERS} characters")
    counts = [max(int(low or 0), int(high or 0), 1) for low, high in _COUNTED.findall(pattern)]
    if math.prod(counts) > MOST_REPETITIONS or len(_REPEATED.findall(pattern)) > _MOST_OPEN_REPETITIONS:
        raise ValueError(f"a pattern repeats more than {MOST_REPETITIONS} times")
