"""What OpenAPI says of every route alike: the headers that each takes and gives, and what each can refuse."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from serving.gateway.auth import scope_of
from serving.gateway.endpoints import describe_refusal
from serving.gateway.scopes import Scope

_UNSAFE = frozenset({"post", "put", "delete", "patch"})
_IDEMPOTENCY: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "has a repeated request be answered as the first one was; streams are run anew",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[\\x21-\\x7e]+$"},
}
_DEADLINE: dict[str, Any] = {
    "name": "X-Lorry-Deadline",
    "in": "header",
    "required": False,
    "description": "seconds that the caller will wait; it goes along to the engine",
    "schema": {"type": "number", "exclusiveMinimum": 0},
}
_REQUEST_ID: dict[str, Any] = {
    "name": "X-Request-Id",
    "in": "header",
    "required": False,
    "description": "the caller's own id of the request, `A-Z a-z 0-9 . _ : -`; any other value is replaced",
    "schema": {"type": "string", "maxLength": 128},
}


def install_openapi(app: FastAPI) -> None:
    """Make `app` describe itself completely."""

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            scopes = required_scopes(app)
            for path, operations in schema["paths"].items():
                for verb, operation in operations.items():
                    operation["responses"]["405"] = _refusal(405)
                    if path.startswith("/v1/"):
                        _complete(verb, path, operation, scope=scopes.get((verb, path)))
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = describe  # type: ignore[method-assign]  # FastAPI's own way to extend it


def required_scopes(app: FastAPI) -> dict[tuple[str, str], Scope]:
    """Return the scope that each route's callers need, by verb and path as OpenAPI spells them."""
    found: dict[tuple[str, str], Scope] = {}
    for route in app.routes:
        if isinstance(route, APIRoute):
            scopes = [scope for call in _calls(route.dependant) if (scope := scope_of(call)) is not None]
            found |= {(verb.lower(), route.path_format): scope for verb in route.methods for scope in scopes}
    return found


def _calls(dependant: Dependant) -> Iterator[Any]:
    for each in dependant.dependencies:
        yield each.call
        yield from _calls(each)


def _complete(verb: str, path: str, operation: dict[str, Any], *, scope: Scope | None) -> None:
    parameters, responses = operation.setdefault("parameters", []), operation["responses"]
    parameters += [_DEADLINE, _REQUEST_ID]
    if verb in _UNSAFE:
        parameters.append(_IDEMPOTENCY)
    if verb in _UNSAFE or "{user_id}" in path:  # a key that is taken, or a user who is being erased
        responses.setdefault("409", _refusal(409))
    if scope is not None:
        operation["description"] = f"{operation.get('description', '')}\n\nNeeds the scope `{scope}`.".strip()


def _refusal(status: int) -> dict[str, Any]:
    return {name: value for name, value in describe_refusal(status).items() if name != "model"}
