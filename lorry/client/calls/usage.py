"""Calls about what was used."""

from __future__ import annotations

from datetime import date
from typing import Literal

from lorry.client.calls.call import PAGE_ROWS, Call, Page, given, page
from lorry.client.results import Usage


def list_page(
    *, by: Literal["user", "day"], since: date | None, until: date | None, user: str | None, cursor: str | None
) -> Call[Page[Usage]]:
    """Read one page of what the tenant used."""
    first, last = (None if day is None else day.isoformat() for day in (since, until))
    params = given(by=by, since=first, until=last, user_id=user, cursor=cursor, limit=PAGE_ROWS)
    return Call(method="GET", path="/v1/usage", params=params, read=page(Usage, "usage"))
