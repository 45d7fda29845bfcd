"""What OpenAPI says of every route alike: conditions of reading, keys of repeating, what may be answered to them."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from registry.access import is_kept, refusals

_KEPT = "makes a repeated request be answered as the first one was; kept for a day"
_NOT_KEPT = "refuses a second request (409) while the first one runs; its answer is not kept, and the next is run anew"
_KEY: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[\\x21-\\x7e]+$"},
}
_CONDITION: dict[str, Any] = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "description": "the ETag of an answer that the caller has; 304 when it is still the answer",
    "schema": {"type": "string"},
}
_ALLOW = {"Allow": {"description": "the methods that are taken here", "schema": {"type": "string"}}}
_ETAG = {"ETag": {"description": "changes whenever the answer does", "schema": {"type": "string"}}}


def install_openapi(app: FastAPI) -> None:
    """Make `app` describe itself completely."""

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            kept = kept_answers(app)
            for path, operations in schema["paths"].items():
                for verb, operation in operations.items():
                    if path.startswith("/v1"):
                        _complete(verb, operation, kept=(verb, path) in kept)
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = describe  # type: ignore[method-assign]  # FastAPI's own way to extend it


def kept_answers(app: FastAPI) -> set[tuple[str, str]]:
    """Return (verb, path) of every route that honours an ``Idempotency-Key``, as OpenAPI spells them."""
    routes = [route for route in app.routes if isinstance(route, APIRoute) and is_kept(route)]
    return {("post", route.path_format) for route in routes}


def _complete(verb: str, operation: dict[str, Any], *, kept: bool) -> None:
    parameters, responses = operation.setdefault("parameters", []), operation["responses"]
    if verb == "post":
        parameters.append({**_KEY, "description": _KEPT if kept else _NOT_KEPT})
        responses.setdefault("409", _refusal(409))
    responses["405"] = {**_refusal(405), "headers": _ALLOW}
    if "304" in responses:
        parameters.append(_CONDITION)
        for status in ("200", "304"):
            responses[status]["headers"] = _ETAG


def _refusal(status: int) -> dict[str, Any]:
    described = refusals(status)[status]
    return {name: described[name] for name in ("description", "content")}
