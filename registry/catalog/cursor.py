"""Where a page ended: the last row's key, packed so that nobody is tempted to make one up.

A page begins after a key rather than at a row number, so page 10,000 costs what page one costs, and rows that come or
go meanwhile neither repeat nor hide others. Law: ``read_cursor(write_cursor(k, *v), k, *map(type, v)) == v``.
"""

from __future__ import annotations

import base64
import binascii
import json
from datetime import datetime
from typing import Any, Final

from kit.json_guard import is_storable
from registry.errors import InvalidCursor

MAX_CURSOR: Final = 512


def write_cursor(kind: str, *key: str | int | datetime) -> str:
    """Return a cursor to what comes after `key` in the order called `kind`."""
    values = [value.isoformat() if isinstance(value, datetime) else value for value in key]
    return base64.urlsafe_b64encode(json.dumps([kind, *values], separators=(",", ":")).encode()).decode().rstrip("=")


def read_cursor(cursor: str | None, kind: str, *types: type) -> tuple[Any, ...] | None:
    """Return the key in a cursor of the order `kind`; None for the first page.

    Raises:
        InvalidCursor: for what no earlier page of this listing gave.
    """
    if cursor is None:
        return None
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        found, *values = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        key = tuple(_read(value, as_type) for value, as_type in zip(values, types, strict=True))
    except (binascii.Error, ValueError, TypeError, RecursionError) as exc:
        raise _unknown() from exc
    if found != kind:
        raise _unknown()
    return key


def _read(value: Any, as_type: type) -> Any:
    if as_type is datetime:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError("a moment without an offset")
        return moment
    if type(value) is not as_type or (isinstance(value, int) and abs(value) >= 1 << 63):
        raise ValueError("not of this listing")
    if isinstance(value, str) and not is_storable(value):
        raise ValueError("no key holds that")
    return value


def _unknown() -> InvalidCursor:
    return InvalidCursor("that cursor was not given by an earlier page of this listing", field="cursor")
