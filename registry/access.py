"""Who is calling, and what that caller may do.

Two tokens, two roles: an *operator* may do everything; an *engine* may only read versions it is asked to serve and
speak for itself in the engine directory. Tenant keys belong to the gateway, which mounts these routes.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

from fastapi import Depends, Header, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel

from kit.names import Name
from kit.problems import MEDIA_TYPE
from registry.errors import Forbidden, Unauthorized
from registry.settings import RegistrySettings

_bearer = HTTPBearer(auto_error=False, description="the registry's token")


class Role(StrEnum):
    """What a caller is."""

    OPERATOR = "operator"
    ENGINE = "engine"


@dataclass(frozen=True, kw_only=True)
class Caller:
    """One authenticated caller; `tenant` None = every tenant; `actor` is the program's name in the audit trail."""

    role: Role
    actor: str
    tenant: str | None = None


class Problem(BaseModel):
    """Problem details, RFC 9457; `type` ends with the error's code."""

    type: str
    title: str
    status: int
    detail: str
    field: str | None = None


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return how OpenAPI describes these statuses, beside those that every route can answer."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": _DESCRIPTIONS[status], "content": content, "model": Problem}
        for status in sorted({401, 403, 413, 422, 503, *statuses})
    }


NOT_MODIFIED: dict[int | str, dict[str, Any]] = {
    304: {"description": "The caller has it already: `If-None-Match` named its ETag."}
}
_DESCRIPTIONS = {
    401: "The bearer token is missing or wrong.",
    403: "This caller may not do that.",
    404: "There is no such base model, adapter, version, alias or engine.",
    405: "No route takes that method at this path; `Allow` names those that are taken.",
    409: "The registry's state forbids it: another content, another base, another alias position, or not ready.",
    412: "The resource has changed since the caller last read it.",
    413: "The request is too large.",
    422: "The input is not valid; the field is named.",
    503: "The database or the object store did not answer; try again.",
}


def keep_secret(response: Response) -> None:
    """Have nobody keep an answer with a key, a report or a name: neither on the way nor for a repeated request."""
    response.headers["cache-control"] = "no-store"


def is_kept(route: APIRoute) -> bool:
    """Say whether a route's answer to an ``Idempotency-Key`` is kept: of every POST but those that `keep_secret`."""
    return "POST" in route.methods and keep_secret not in _calls(route.dependant)


def _calls(dependant: Dependant) -> Iterator[Callable[..., Any] | None]:
    for each in dependant.dependencies:
        yield each.call
        yield from _calls(each)


async def authenticate(
    request: Request,
    _: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],  # for OpenAPI
    actor: Annotated[
        Name, Header(alias="x-lorry-actor", description="the program that acts, for the audit trail")
    ] = "unknown",
) -> Caller:
    """Say who calls.

    Raises:
        Unauthorized: when the token is nobody's.
    """
    role = identify(request.app.state.settings, request.headers.get("authorization"))
    if role is None:
        raise Unauthorized
    return Caller(role=role, actor=actor)


def identify(settings: RegistrySettings, authorization: str | None) -> Role | None:
    """Return whose token an ``Authorization`` header presents; None = nobody's.

    Every token is compared in full, so that a wrong one takes as long whatever it is.
    """
    scheme, _, presented = (authorization or "").partition(" ")
    tokens = {Role.OPERATOR: settings.registry_token, Role.ENGINE: settings.registry_engine_token}
    known = {role: token.get_secret_value().encode() for role, token in tokens.items() if token}
    matching = [role for role, token in known.items() if hmac.compare_digest(token, presented.strip().encode())]
    return matching[0] if matching and scheme.lower() == "bearer" else None


def require(*roles: Role) -> Callable[[Request, Caller], Caller]:
    """Return a dependency that lets only these roles pass, and only into their own tenant."""

    def check(request: Request, caller: Annotated[Caller, Depends(authenticate)]) -> Caller:
        tenant = request.path_params.get("tenant")
        if caller.role not in roles or caller.tenant not in (None, tenant):
            raise Forbidden
        return caller

    return check


Operator = Annotated[Caller, Depends(require(Role.OPERATOR))]
Engine = Annotated[Caller, Depends(require(Role.OPERATOR, Role.ENGINE))]
