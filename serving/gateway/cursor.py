"""Where a page ended, as text that callers pass on without understanding it."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence

from serving.errors import CursorInvalid


def encode_cursor(place: Sequence[str]) -> str:
    """Return the cursor of a place."""
    return base64.urlsafe_b64encode(json.dumps(list(place)).encode()).decode().rstrip("=")


def decode_cursor(cursor: str, *, parts: int) -> list[str]:
    """Return the place that a cursor names, in as many parts.

    Raises:
        CursorInvalid: when it is none of ours.
    """
    try:
        place = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (ValueError, RecursionError) as exc:
        raise CursorInvalid(field="cursor") from exc
    if not isinstance(place, list) or len(place) != parts or not all(isinstance(each, str) for each in place):
        raise CursorInvalid(field="cursor")
    if any("\x00" in each or not each.isascii() for each in place):
        raise CursorInvalid(field="cursor")
    return place
