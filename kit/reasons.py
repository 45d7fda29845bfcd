"""Why pydantic refused a value, in words for whoever sent it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

PLACES: Final = ("body", "query", "path", "header", "cookie")
_SUBJECT = re.compile(r"^(?:Input|Value|String|Bytes|List|Tuple|Set|Dictionary|Number|URL|Date|Datetime) should ")


def describe(error: Mapping[str, Any]) -> tuple[str, str]:
    """Return (field, reason) of one of pydantic's errors; `field` is dotted, and begins with its place in a request.

    A body that is not JSON is said to be that, with where and why, and its field is the body.
    """
    if error["type"] == "json_invalid" and error["loc"]:
        *place, position = error["loc"]
        why = error.get("ctx", {}).get("error", "it cannot be parsed")
        return ".".join(map(str, place)) or "body", f"is not JSON at character {position}: {why}"
    return ".".join(str(part) for part in error["loc"]), reason(error)


def reason(error: Mapping[str, Any]) -> str:
    """Return what is wrong with a value, to be read after its name."""
    message = str(error["msg"])
    match error["type"]:
        case "missing":
            return "is missing"
        case "extra_forbidden":
            return "is not a field that is known here"
        case "enum" | "literal_error":
            return f"must be one of {error['ctx']['expected']}"
        case "value_error" | "assertion_error":
            return message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
        case _:
            return _SUBJECT.sub("must ", message)


def place_name(field: str) -> str:
    """Return a field's name without its place in a request: ``query.state`` → ``state``."""
    place, _, name = field.partition(".")
    return name if name and place in PLACES else field
