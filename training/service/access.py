"""Who may call, and how OpenAPI describes refusals."""

from __future__ import annotations

import hmac
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel

from kit.problems import MEDIA_TYPE
from training.jobs.errors import JobAccessDenied
from training.jobs.settings import TrainingServiceSettings

_bearer = HTTPBearer(auto_error=False, description="the training service's token")


class Problem(BaseModel):
    """Problem details, RFC 9457; `type` ends with the error's code."""

    type: str
    title: str
    status: int
    detail: str
    field: str | None = None


_DESCRIPTIONS = {
    401: "The bearer token is missing or wrong.",
    404: "There is no such job or campaign.",
    409: "The state forbids it: a training of that user is active, the job has ended, there is nothing to train on.",
    413: "The request is too large.",
    422: "The input is not valid; the field is named.",
    429: "The tenant has used up what its quota allows.",
    503: "The database did not answer; try again.",
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return how OpenAPI describes these statuses, beside those that every route can answer."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": _DESCRIPTIONS[status], "content": content, "model": Problem}
        for status in sorted({401, 413, 422, 503, *statuses})
    }


async def authenticate(
    request: Request,
    _: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],  # for OpenAPI
) -> None:
    """Let nobody pass without the service's token.

    Raises:
        JobAccessDenied: when the token is another.
    """
    settings: TrainingServiceSettings = request.app.state.settings
    scheme, _space, presented = (request.headers.get("authorization") or "").partition(" ")
    expected = settings.training_token.get_secret_value().encode()
    if not hmac.compare_digest(expected, presented.strip().encode()) or scheme.lower() != "bearer":
        raise JobAccessDenied
