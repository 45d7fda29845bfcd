"""Reading what strangers wrote: JSON with no surprises, names that are safe to print and store."""

from __future__ import annotations

import json
import math
from typing import Any

from kit.canonical import canonical_json


def parse_json(data: bytes, *, written_again: bool = True) -> Any:
    """Read UTF-8 JSON strictly: no repeated keys, no NaN, no lone surrogates, no bottomless nesting.

    Args:
        data: the JSON.
        written_again: whether the value may be serialised by whoever asked. That it can be is tried, which takes as
            long as reading; for a value of which only numbers and names that are compared are kept, it is not.

    Raises:
        ValueError: saying what is wrong.
    """
    try:
        value = json.loads(
            data.decode(), object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite_float
        )
        if written_again or b"\\u" in data:  # escapes can spell what UTF-8, and so our database, cannot hold
            canonical_json(value)
    except RecursionError as exc:
        raise ValueError("it is nested too deeply") from exc
    return value


def printable(text: str, *, limit: int = 200) -> str:
    """Return the first `limit` characters in ASCII, control characters and the rest escaped."""
    return ascii(text[:limit])[1:-1]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is repeated")
    return found


def _finite_float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text[:40]} is too large a number")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
