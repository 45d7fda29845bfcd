"""The drawing of the error tree is true."""

from __future__ import annotations

import inspect
import re
from typing import Any

from kit.errors import LorryError
from transcripts import errors


def test_every_error_is_drawn_with_its_status_and_its_parent() -> None:
    drawn: dict[str, tuple[str | None, int]] = {}
    stack: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if found := re.fullmatch(r"(?P<indent>[│├└─ ]*)(?P<name>\w+)\s+(?P<status>\d{3})", line):
            depth = len(found["indent"]) // 4
            stack[depth:] = [found["name"]]
            drawn[found["name"]] = (stack[depth - 1] if depth else None, int(found["status"]))
    defined = {
        name: (cls.__base__.__name__ if name != "TranscriptError" else None, cls.status_code)
        for name, cls in _defined()
    }
    assert drawn == defined


def test_every_error_has_a_default_message() -> None:
    for name, cls in _defined():
        assert len(cls().message) > 10, name


def _defined() -> list[tuple[str, type[LorryError]]]:
    members: list[tuple[str, Any]] = inspect.getmembers(errors, inspect.isclass)
    return [(name, cls) for name, cls in members if cls.__module__ == "transcripts.errors"]
