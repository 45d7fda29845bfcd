"""The registry over HTTP: parse, call, answer. No decisions are made here.

Transactions are opened and committed inside the publisher and the service, so whatever an answer
says has been committed before the answer is sent.
"""

from __future__ import annotations

import hmac
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel

from kit.names import Name
from kit.problems import MEDIA_TYPE
from registry.errors import Unauthorized
from registry.manifest import LIVE, AdapterRef, BaseIdentity, Draft, Manifest, Owner, VersionId
from registry.publisher import Publisher
from registry.schemas import AdapterPage, Alias, AliasMove, Publication, Resolution, VersionSummary
from registry.service import RegistryService
from registry.settings import RegistrySettings

_bearer = HTTPBearer(auto_error=False, description="the registry's token")


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
        for status in sorted({401, 422, 503, *statuses})
    }


_DESCRIPTIONS = {
    401: "The bearer token is missing or wrong.",
    404: "There is no such base model, adapter, version or alias.",
    409: "The registry's state forbids it: another content, another base, another alias position, or not ready.",
    413: "The request is too large.",
    422: "The input is not valid; the field is named.",
    503: "The database or the object store did not answer; try again.",
}


async def require_token(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> None:
    """Refuse callers without the token; the comparison takes as long for any wrong one."""
    settings: RegistrySettings = request.app.state.settings
    expected = settings.registry_token.get_secret_value().encode()
    presented = credentials.credentials.encode() if credentials else b""
    if not hmac.compare_digest(expected, presented):
        raise Unauthorized


def get_publisher(request: Request) -> Publisher:
    """Return the process's publisher."""
    publisher: Publisher = request.app.state.publisher
    return publisher


def get_service(request: Request) -> RegistryService:
    """Return the process's service."""
    service: RegistryService = request.app.state.service
    return service


PublisherDep = Annotated[Publisher, Depends(get_publisher)]
ServiceDep = Annotated[RegistryService, Depends(get_service)]
Actor = Annotated[Name, Header(alias="x-lorry-actor", description="who acts, for the audit trail; a program's name")]
_ADAPTER = "/tenants/{tenant}/users/{user}/adapters/{adapter}"

router = APIRouter(prefix="/v1", dependencies=[Depends(require_token)])


@router.post("/bases", responses=refusals(409, 413))
async def register_base(identity: BaseIdentity, service: ServiceDep, actor: Actor = "unknown") -> BaseIdentity:
    """Make a base model known; registering the same one again is no error."""
    return await service.register_base(identity, actor=actor)


@router.get("/bases", responses=refusals())
async def list_bases(service: ServiceDep) -> list[BaseIdentity]:
    """List the base models that adapters may be made for."""
    return await service.list_bases()


@router.post("/versions", responses=refusals(404, 409, 413))
async def begin(draft: Draft, publisher: PublisherDep, actor: Actor = "unknown") -> Publication:
    """Claim a version and get URLs to upload its files; the same content again finds the same version."""
    return await publisher.begin(draft, actor=actor)


@router.post("/versions/{version_id}/complete", responses=refusals(404, 409))
async def complete(version_id: VersionId, publisher: PublisherDep, actor: Actor = "unknown") -> Manifest:
    """Verify what was uploaded and make the version ready; completing again is no error."""
    return await publisher.complete(version_id, actor=actor)


@router.get("/versions/{version_id}", responses=refusals(404, 409))
async def get_version(version_id: VersionId, service: ServiceDep) -> Resolution:
    """Resolve an opaque version id."""
    return await service.get_version(version_id)


@router.get(_ADAPTER + "/resolution", responses=refusals(404, 409))
async def resolve(tenant: Name, user: Name, adapter: Name, service: ServiceDep, selector: Name = LIVE) -> Resolution:
    """Resolve an alias or a version number."""
    owner = Owner(tenant=tenant, user=user)
    return await service.resolve(AdapterRef(owner=owner, adapter=adapter, selector=selector))


@router.get(_ADAPTER + "/versions", responses=refusals(404))
async def list_versions(tenant: Name, user: Name, adapter: Name, service: ServiceDep) -> list[VersionSummary]:
    """List an adapter's versions in every state, the newest first."""
    return await service.list_versions(Owner(tenant=tenant, user=user), adapter)


@router.get(_ADAPTER + "/aliases/{alias}", responses=refusals(404))
async def get_alias(tenant: Name, user: Name, adapter: Name, alias: Name, service: ServiceDep) -> Alias:
    """Say which version an alias names."""
    found = await service.get_alias(Owner(tenant=tenant, user=user), adapter, alias)
    return Alias(alias=alias, version_id=found)


@router.put(_ADAPTER + "/aliases/{alias}", responses=refusals(404, 409, 413))
async def move_alias(
    tenant: Name,
    user: Name,
    adapter: Name,
    alias: Name,
    move: AliasMove,
    service: ServiceDep,
    actor: Actor = "unknown",
) -> Alias:
    """Move an alias by compare-and-swap."""
    await service.move_alias(Owner(tenant=tenant, user=user), adapter, alias, move=move, actor=actor)
    return Alias(alias=alias, version_id=move.version_id)


@router.get("/tenants/{tenant}/adapters", responses=refusals())
async def list_adapters(
    tenant: Name,
    service: ServiceDep,
    user: Name | None = None,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> AdapterPage:
    """List a tenant's adapters, page by page."""
    return await service.list_adapters(tenant, user=user, cursor=cursor, limit=limit)
