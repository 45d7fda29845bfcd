"""What all endpoints share: how users are named in paths, and how OpenAPI describes refusals."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import Path, Query

from kit.names import Name
from kit.problems import MEDIA_TYPE
from serving.gateway.schemas import Problem

UserId = Annotated[Name, Path(description="the tenant's own name for the user")]
Cursor = Annotated[str | None, Query(max_length=400, description="`next_cursor` of the page before")]
Limit = Annotated[int, Query(ge=1, le=1000, description="rows a page")]
_DESCRIPTIONS = {
    400: "The engine cannot take this request.",
    401: "The API key is missing, wrong, revoked or over.",
    403: "The API key lacks the scope that `scope` names.",
    404: "There is no such thing in this tenant.",
    405: "No route takes that method at this path; `Allow` names those that are taken.",
    406: "There is no form of this that `Accept` allows.",
    409: "The state of things forbids it, or the `Idempotency-Key` is taken.",
    412: "The resource has changed since the caller last read it.",
    413: "The request is too large.",
    415: "The content type is none that this route takes.",
    422: "The input is not valid; the field is named.",
    429: "The tenant asks more than it may, or the engine has enough to do; `Retry-After` says when to come back.",
    502: "The engine's answer cannot be used.",
    503: "A part does not answer; try again.",
    504: "The deadline passed, or the engine was silent for too long.",
}
_RETRY_AFTER = {"Retry-After": {"description": "seconds to wait", "schema": {"type": "integer"}}}
EVERYWHERE = (401, 403, 413, 422, 429, 503, 504)
"""Statuses that every route under ``/v1`` can answer."""


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI description of how routes under ``/v1`` refuse, beside what `EVERYWHERE` says."""
    return {status: describe_refusal(status) for status in sorted({*EVERYWHERE, *statuses})}


# A stream of server-sent events, one by one, as OpenAPI 3.2 writes it.
EVENTS: Final[dict[str, Any]] = {
    "text/event-stream": {
        "itemSchema": {
            "type": "object",
            "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
            "required": ["data"],
        }
    }
}


def describe_refusal(status: int) -> dict[str, Any]:
    """Return the OpenAPI description of one refusal."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    headers = {"headers": _RETRY_AFTER} if status in {429, 503} else {}
    return {"description": _DESCRIPTIONS[status], "content": content, "model": Problem, **headers}
