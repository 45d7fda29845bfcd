"""Calls about batch extractions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from lorry.client.calls.call import PAGE_ROWS, Call, Page, given, model, page, segment, stream
from lorry.client.results import Extraction, ExtractionState, Only

Verb = Literal["pause", "resume", "cancel"]
_PATH = "/v1/extractions"


def submit(
    users: Iterable[str] | None, *, everybody: bool, only: Only, max_age_days: float | None, webhook: str | None
) -> Call[Extraction]:
    """Queue a batch."""
    told = None if webhook is None else {"url": webhook}
    body = {"everybody": everybody, "only": only}
    body |= given(users=None if users is None else list(users), max_age_days=max_age_days, webhook=told)
    return Call(method="POST", path=_PATH, json=body, read=model(Extraction))


def list_page(*, states: Sequence[ExtractionState], cursor: str | None) -> Call[Page[Extraction]]:
    """Read one page of the tenant's batches."""
    params = given(state=list(states) or None, before=cursor, limit=PAGE_ROWS)
    return Call(method="GET", path=_PATH, params=params, read=page(Extraction, "extractions", cursor="next_before"))


def get(extraction_id: str) -> Call[Extraction]:
    """Read one batch."""
    return Call(method="GET", path=_one(extraction_id), read=model(Extraction))


def steer(extraction_id: str, verb: Verb) -> Call[Extraction]:
    """Pause, resume or cancel a batch."""
    return Call(method="POST", path=f"{_one(extraction_id)}/{verb}", read=model(Extraction))


def results(extraction_id: str, *, after: int, follow: bool) -> Call[None]:
    """Open the stream of a batch's results."""
    params = {"after": after, "follow": follow}
    return stream(f"{_one(extraction_id)}/results", params=params, accept="application/x-ndjson")


def _one(extraction_id: str) -> str:
    return f"{_PATH}/{segment(extraction_id, field='extraction_id')}"
