"""Problem details (RFC 9457): how every HTTP service of ours says no.

One handler on the root of the error trees renders them all; nothing below the web layer raises
HTTPException.
"""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.routing import Match

from kit.errors import LorryError, problem_code
from kit.reasons import describe, place_name

MEDIA_TYPE = "application/problem+json"
_METHOD_NOT_ALLOWED = 405
_log = logging.getLogger(__name__)
_HEADERS = {401: {"www-authenticate": "Bearer"}, 429: {"retry-after": "1"}, 503: {"retry-after": "1"}}
__all__ = ["MEDIA_TYPE", "install_problem_handlers", "problem", "problem_code", "refusal"]


def problem(
    status: int, *, code: str, title: str, detail: str, headers: dict[str, str] | None = None, **extensions: Any
) -> JSONResponse:
    """Return one problem-details response; `code` becomes ``urn:lorry:problem:<code>``."""
    body = {"type": f"urn:lorry:problem:{code}", "title": title, "status": status, "detail": detail, **extensions}
    return JSONResponse(body, status_code=status, media_type=MEDIA_TYPE, headers=headers)


def refusal(exc: LorryError) -> JSONResponse:
    """Return how one of our errors is answered; what is our fault is logged."""
    if exc.status_code >= 500:
        _log.error("%s: %s", type(exc).__name__, exc.message)
    title = (type(exc).__doc__ or "").split("\n")[0]
    extensions = {**({"field": exc.field} if exc.field else {}), **exc.details}
    headers = dict(_HEADERS.get(exc.status_code, {}))
    if (seconds := exc.details.get("retry_after_seconds")) is not None:
        headers["retry-after"] = str(seconds)
    return problem(
        exc.status_code, code=problem_code(type(exc)), title=title, detail=exc.message, headers=headers, **extensions
    )


def _methods(request: Request) -> list[str]:
    """Return every method that some route takes at the request's path; Starlette names those of one route only."""
    routes = [route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for route in routes for method in getattr(route, "methods", None) or ()})


def install_problem_handlers(app: FastAPI) -> None:
    """Make `app` answer every refusal, bad request and crash as problem details."""

    @app.exception_handler(LorryError)
    async def refused(request: Request, exc: LorryError) -> JSONResponse:
        return refusal(exc)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, exc: RequestValidationError) -> JSONResponse:
        found = [describe(error) for error in exc.errors()]
        errors = [{"field": field, "reason": reason} for field, reason in found]
        detail = "; ".join(f"{place_name(field)}: {reason}" for field, reason in found[:5])
        return problem(422, code="invalid-request", title="The request is not valid.", detail=detail, errors=errors)

    @app.exception_handler(StarletteHTTPException)
    async def http(request: Request, exc: StarletteHTTPException) -> JSONResponse:
        title = str(exc.detail)
        if exc.status_code == 400:  # FastAPI's word for a body that its parser gave up on, as a number of 5000 digits
            errors = [{"field": "body", "reason": "cannot be parsed"}]
            detail = "body: cannot be parsed"
            return problem(422, code="invalid-request", title="The request is not valid.", detail=detail, errors=errors)
        headers = {name.lower(): value for name, value in (exc.headers or {}).items()}
        if exc.status_code == _METHOD_NOT_ALLOWED:
            headers["allow"] = ", ".join(_methods(request))
        return problem(exc.status_code, code=f"http-{exc.status_code}", title=title, detail=title, headers=headers)

    @app.exception_handler(Exception)
    async def crashed(request: Request, exc: Exception) -> JSONResponse:
        route = getattr(request.scope.get("route"), "path", "an unknown route")  # the path itself names users
        _log.error("unexpected error on %s %s", request.method, route, exc_info=exc)
        return problem(500, code="internal", title="Something broke on our side.", detail="The error was logged.")
