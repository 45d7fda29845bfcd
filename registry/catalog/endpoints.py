"""Routes of reading: bases, names, listings, lineage."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import AwareDatetime

from kit.conditional import conditional
from kit.names import Name
from registry.access import NOT_MODIFIED, Engine, Operator, refusals
from registry.catalog.cursor import MAX_CURSOR
from registry.catalog.difference import Comparison
from registry.catalog.listings import Listings
from registry.catalog.repository import AdapterFilter, VersionFilter
from registry.catalog.resolver import Resolver
from registry.catalog.schemas import (
    AdapterDetail,
    AdapterPage,
    Alias,
    Difference,
    FoundVersionPage,
    Resolution,
    VersionDetail,
    VersionPage,
)
from registry.catalog.service import Catalog
from registry.manifest import LIVE, AdapterRef, BaseId, Owner, OwnerName, RegisteredBase, TranscriptId, VersionId
from registry.models import State
from registry.services import service

router = APIRouter(prefix="/v1", tags=["catalog"])
_ADAPTER = "/tenants/{tenant}/users/{user}/adapters/{adapter}"


CatalogDep = Annotated[Catalog, Depends(service(Catalog))]
ResolverDep = Annotated[Resolver, Depends(service(Resolver))]
ListingsDep = Annotated[Listings, Depends(service(Listings))]
ComparisonDep = Annotated[Comparison, Depends(service(Comparison))]
Cursor = Annotated[str | None, Query(max_length=MAX_CURSOR, description="`next_cursor` of the page before")]
Limit = Annotated[int, Query(ge=1, le=1000, description="rows a page")]
Search = Annotated[
    str | None,
    Query(
        pattern=r"^[A-Za-z0-9._:~-]{1,128}(/[A-Za-z0-9._:-]{0,128})?$",
        description="beginning of a user's name; or a user, `/` and the beginning of an adapter's name",
    ),
]
Selector = Annotated[Name, Query(description="an alias, or a version number")]


@router.get("/bases/{base_id:path}", response_model=RegisteredBase, responses=refusals(404) | NOT_MODIFIED)
async def show_base(base_id: BaseId, request: Request, catalog: CatalogDep, caller: Operator) -> Response:
    """Show one base model; its id may have slashes."""
    return conditional(request, await catalog.show_base(base_id))


@router.get("/versions/{version_id}", response_model=Resolution, responses=refusals(404, 409) | NOT_MODIFIED)
async def get_version(version_id: VersionId, request: Request, resolver: ResolverDep, caller: Engine) -> Response:
    """Resolve an opaque version id."""
    found = await resolver.resolve_id(version_id)
    return conditional(request, b'{"manifest":%b}' % found.text.encode(), tag=found.digest)


@router.get(_ADAPTER + "/resolution", response_model=Resolution, responses=refusals(404, 409) | NOT_MODIFIED)
async def resolve(
    tenant: Name,
    user: OwnerName,
    adapter: Name,
    request: Request,
    resolver: ResolverDep,
    caller: Operator,
    selector: Selector = LIVE,
) -> Response:
    """Resolve an alias or a version number to the manifest of a version that may be served."""
    owner = Owner(tenant=tenant, user=user)
    found = await resolver.resolve(AdapterRef(owner=owner, adapter=adapter, selector=selector))
    return conditional(request, b'{"manifest":%b}' % found.text.encode(), tag=found.digest)


@router.get("/tenants/{tenant}/adapters", response_model=AdapterPage, responses=refusals() | NOT_MODIFIED)
async def list_adapters(
    tenant: Name,
    request: Request,
    listings: ListingsDep,
    caller: Operator,
    user: Annotated[OwnerName | None, Query(description="only this user's; `~` = what the tenant shares")] = None,
    search: Search = None,
    base: Annotated[BaseId | None, Query(description="only those with a version for this base model")] = None,
    alias: Annotated[Name | None, Query(description="only those that have this alias")] = None,
    state: Annotated[State | None, Query(description="only those with a version in this state")] = None,
    suspended: Annotated[bool | None, Query(description="only those that are suspended, or are not")] = None,
    created_since: Annotated[
        AwareDatetime | None, Query(description="only those created at that time or later")
    ] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Response:
    """List a tenant's adapters, page by page: by name with `user` or `search`, else as they were created."""
    wanted = AdapterFilter(
        tenant=tenant,
        user=user,
        search=search,
        base=base,
        alias=alias,
        state=state,
        suspended=suspended,
        created_since=created_since,
    )
    return conditional(request, await listings.list_adapters(wanted, cursor=cursor, limit=limit))


@router.get("/tenants/{tenant}/versions", response_model=FoundVersionPage, responses=refusals() | NOT_MODIFIED)
async def find_versions(
    tenant: Name,
    request: Request,
    listings: ListingsDep,
    caller: Operator,
    transcript: Annotated[TranscriptId | None, Query(description="only those trained on this transcript")] = None,
    base: Annotated[BaseId | None, Query(description="only those trained for this base model")] = None,
    state: Annotated[State | None, Query(description="only those in this state")] = None,
    user: Annotated[OwnerName | None, Query(description="only this user's")] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Response:
    """Find versions by what they came from: which were trained on a transcript, which for a base model."""
    wanted = VersionFilter(tenant=tenant, user=user, transcript=transcript, base=base, state=state)
    return conditional(request, await listings.find_versions(wanted, cursor=cursor, limit=limit))


@router.get(_ADAPTER, response_model=AdapterDetail, responses=refusals(404) | NOT_MODIFIED)
async def show_adapter(
    tenant: Name, user: OwnerName, adapter: Name, request: Request, listings: ListingsDep, caller: Operator
) -> Response:
    """Show one adapter: aliases, live version, versions by state."""
    return conditional(request, await listings.show_adapter(Owner(tenant=tenant, user=user), adapter))


@router.get(_ADAPTER + "/versions", response_model=VersionPage, responses=refusals(404) | NOT_MODIFIED)
async def list_versions(
    tenant: Name,
    user: OwnerName,
    adapter: Name,
    request: Request,
    listings: ListingsDep,
    caller: Operator,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Response:
    """List an adapter's versions in every state, the newest first."""
    owner = Owner(tenant=tenant, user=user)
    return conditional(request, await listings.list_versions(owner, adapter, cursor=cursor, limit=limit))


@router.get(_ADAPTER + "/versions/{selector}", response_model=VersionDetail, responses=refusals(404) | NOT_MODIFIED)
async def show_version(
    tenant: Name,
    user: OwnerName,
    adapter: Name,
    selector: Name,
    request: Request,
    listings: ListingsDep,
    caller: Operator,
) -> Response:
    """Show everything that is known of one version, named by number or alias, whatever its state."""
    ref = AdapterRef(owner=Owner(tenant=tenant, user=user), adapter=adapter, selector=selector)
    return conditional(request, await listings.show_version(ref))


@router.get(_ADAPTER + "/difference", response_model=Difference, responses=refusals(404) | NOT_MODIFIED)
async def compare_versions(
    tenant: Name,
    user: OwnerName,
    adapter: Name,
    old: Selector,
    new: Selector,
    request: Request,
    comparison: ComparisonDep,
    caller: Operator,
) -> Response:
    """Compare two versions of an adapter: configuration, files, lineage, evaluation."""
    owner = Owner(tenant=tenant, user=user)
    refs = [AdapterRef(owner=owner, adapter=adapter, selector=selector) for selector in (old, new)]
    return conditional(request, await comparison.compare(*refs))


@router.get(_ADAPTER + "/aliases/{alias}", response_model=Alias, responses=refusals(404) | NOT_MODIFIED)
async def get_alias(
    tenant: Name,
    user: OwnerName,
    adapter: Name,
    alias: Name,
    request: Request,
    catalog: CatalogDep,
    caller: Operator,
) -> Response:
    """Say which version an alias names; the ETag is that version's id, for `If-Match` of a move."""
    found = await catalog.get_alias(Owner(tenant=tenant, user=user), adapter, alias)
    return conditional(request, Alias(alias=alias, version_id=found), tag=found)
