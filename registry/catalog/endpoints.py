"""Routes of reading: bases, resolve, listings."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request

from kit.names import Name
from registry.access import Engine, Operator, refusals
from registry.catalog.schemas import AdapterPage, Alias, Resolution, VersionSummary
from registry.catalog.service import Catalog
from registry.manifest import LIVE, AdapterRef, BaseIdentity, Owner, OwnerName, VersionId

router = APIRouter(prefix="/v1", tags=["catalog"])
_ADAPTER = "/tenants/{tenant}/users/{user}/adapters/{adapter}"


def get_catalog(request: Request) -> Catalog:
    """Return the process's catalog."""
    catalog: Catalog = request.app.state.catalog
    return catalog


CatalogDep = Annotated[Catalog, Depends(get_catalog)]


@router.post("/bases", responses=refusals(409, 413))
async def register_base(identity: BaseIdentity, catalog: CatalogDep, caller: Operator) -> BaseIdentity:
    """Make a base model known; registering the same one again is no error."""
    return await catalog.register_base(identity, actor=caller.actor)


@router.get("/bases", responses=refusals())
async def list_bases(catalog: CatalogDep, caller: Operator) -> list[BaseIdentity]:
    """List the base models that adapters may be made for."""
    return await catalog.list_bases()


@router.get("/versions/{version_id}", responses=refusals(404, 409))
async def get_version(version_id: VersionId, catalog: CatalogDep, caller: Engine) -> Resolution:
    """Resolve an opaque version id."""
    return await catalog.get_version(version_id)


@router.get(_ADAPTER + "/resolution", responses=refusals(404, 409))
async def resolve(
    tenant: Name, user: OwnerName, adapter: Name, catalog: CatalogDep, caller: Operator, selector: Name = LIVE
) -> Resolution:
    """Resolve an alias or a version number."""
    owner = Owner(tenant=tenant, user=user)
    return await catalog.resolve(AdapterRef(owner=owner, adapter=adapter, selector=selector))


@router.get(_ADAPTER + "/versions", responses=refusals(404))
async def list_versions(
    tenant: Name, user: OwnerName, adapter: Name, catalog: CatalogDep, caller: Operator
) -> list[VersionSummary]:
    """List an adapter's versions in every state, the newest first."""
    return await catalog.list_versions(Owner(tenant=tenant, user=user), adapter)


@router.get(_ADAPTER + "/aliases/{alias}", responses=refusals(404))
async def get_alias(
    tenant: Name, user: OwnerName, adapter: Name, alias: Name, catalog: CatalogDep, caller: Operator
) -> Alias:
    """Say which version an alias names."""
    found = await catalog.get_alias(Owner(tenant=tenant, user=user), adapter, alias)
    return Alias(alias=alias, version_id=found)


@router.get("/tenants/{tenant}/adapters", responses=refusals())
async def list_adapters(
    tenant: Name,
    catalog: CatalogDep,
    caller: Operator,
    user: OwnerName | None = None,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> AdapterPage:
    """List a tenant's adapters, page by page."""
    return await catalog.list_adapters(tenant, user=user, cursor=cursor, limit=limit)
