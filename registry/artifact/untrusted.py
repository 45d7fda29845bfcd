"""Reading what strangers wrote: JSON with no surprises, names that are safe to print and store."""

from __future__ import annotations

import json
from typing import Any

from kit.canonical import canonical_json


def parse_json(data: bytes) -> Any:
    """Read UTF-8 JSON strictly: no repeated keys, no NaN, no lone surrogates, no bottomless nesting.

    Raises:
        ValueError: saying what is wrong.
    """
    try:
        value = json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
        canonical_json(value)  # JSON escapes can spell characters that UTF-8, and so our database, cannot hold
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


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
