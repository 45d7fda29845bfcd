"""What OpenAPI says of every route alike: conditions of reading, keys of repeating, what may be answered to them."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from registry.access import refusals

_KEY: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "makes a repeated request be answered as the first one was; kept for a day",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[\\x21-\\x7e]+$"},
}
_CONDITION: dict[str, Any] = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "description": "the ETag of an answer that the caller has; 304 when it is still the answer",
    "schema": {"type": "string"},
}
_ETAG = {"ETag": {"description": "changes whenever the answer does", "schema": {"type": "string"}}}


def install_openapi(app: FastAPI) -> None:
    """Make `app` describe itself completely."""

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            for path, operations in schema["paths"].items():
                for verb, operation in operations.items():
                    if path.startswith("/v1"):
                        _complete(verb, operation)
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = describe  # type: ignore[method-assign]  # FastAPI's own way to extend it


def _complete(verb: str, operation: dict[str, Any]) -> None:
    parameters, responses = operation.setdefault("parameters", []), operation["responses"]
    if verb == "post":
        parameters.append(_KEY)
        conflict = refusals(409)[409]
        responses.setdefault("409", {name: conflict[name] for name in ("description", "content")})
    if "304" in responses:
        parameters.append(_CONDITION)
        for status in ("200", "304"):
            responses[status]["headers"] = _ETAG
