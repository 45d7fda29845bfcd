"""A cursor gives back what was written, and nothing that the database could not have held."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

import pytest

from registry.catalog.cursor import read_cursor, write_cursor
from registry.errors import InvalidReference


def test_a_cursor_gives_back_what_was_written() -> None:
    key = ("a\U0001f600", 7, datetime(2026, 1, 2, tzinfo=UTC))
    assert read_cursor(write_cursor("names", *key), "names", str, int, datetime) == key


@pytest.mark.parametrize("text", ["a\x00", "\ud800", "x\udfff"])
def test_a_text_that_no_row_holds_is_not_a_cursor(text: str) -> None:
    forged = base64.urlsafe_b64encode(json.dumps(["names", text]).encode()).decode().rstrip("=")
    with pytest.raises(InvalidReference):
        read_cursor(forged, "names", str)
