"""Refusals on OpenAI's routes: problem details with OpenAI's ``error`` object beside them.

The official client shows ``error.message`` and chooses its exception by status.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

_PATHS = ("/v1/chat/", "/v1/models")
_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    429: "rate_limit_error",
}
_Handler = Callable[[Request, Any], Awaitable[Response]]


def openai_error(status: int, message: str, *, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    """Return OpenAI's ``error`` object."""
    kind = _KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"message": message, "type": kind, "code": code, "param": param}


def install_openai_errors(app: FastAPI) -> None:
    """Let every handler of `app` that renders a problem add OpenAI's object on OpenAI's routes.

    Call it after the problem handlers are installed.
    """
    for kind, handler in list(app.exception_handlers.items()):
        app.add_exception_handler(kind, _with_error(handler))


def with_openai_error(response: Response, *, path: str) -> Response:
    """Return a rendered problem with OpenAI's object beside it, when `path` is one of OpenAI's."""
    if not path.startswith(_PATHS) or not isinstance(response, JSONResponse):
        return response
    body = json.loads(bytes(response.body))
    code = str(body.get("type", "")).rpartition(":")[2] or None
    error = openai_error(response.status_code, body.get("detail", ""), code=code, param=body.get("field"))
    headers = {name: value for name, value in response.headers.items() if name.lower() != "content-length"}
    return JSONResponse({**body, "error": error}, status_code=response.status_code, headers=headers)


def _with_error(handler: Any) -> Any:
    async def handle(request: Request, exc: Exception) -> Response:
        return with_openai_error(await handler(request, exc), path=request.url.path)

    return handle
