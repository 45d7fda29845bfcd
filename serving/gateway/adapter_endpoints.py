"""The registry's API for one tenant's own adapters: who has which version, and which one serves.

Versions are named by user, adapter and number or alias, so that no id of another tenant's can be asked for.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request

from kit.names import Name
from registry.client import (
    AdapterDetail,
    AdapterPage,
    Alias,
    AliasHistory,
    AliasMove,
    AliasMoved,
    Difference,
    FoundVersionPage,
    Promotion,
    RegistryClient,
    Rollback,
    Suspension,
    VersionDetail,
    VersionPage,
    VersionState,
    Why,
)
from registry.errors import AliasNotFound
from registry.manifest import LIVE, AdapterRef, BaseId, Owner, OwnerName, TranscriptId
from serving.gateway.auth import Caller, needs
from serving.gateway.body_route import BodyRoute
from serving.gateway.endpoints import Cursor, Limit, refusals
from serving.gateway.scopes import Scope

router = APIRouter(prefix="/v1", tags=["adapters"], route_class=BodyRoute)
_ADAPTER = "/adapters/{user_id}/{adapter}"
_VERSION = _ADAPTER + "/versions/{selector}"
Reader = Annotated[Caller, needs(Scope.ADAPTERS_READ)]
Writer = Annotated[Caller, needs(Scope.ADAPTERS_WRITE)]
UserName = Annotated[OwnerName, Path(alias="user_id", description="a user, or `~` for what the tenant shares")]
Selector = Annotated[Name, Path(description="an alias, or a version number")]


def _registry(request: Request) -> RegistryClient:
    found: RegistryClient = request.app.state.registry
    return found


@router.get("/adapters", responses=refusals())
async def list_adapters(
    request: Request,
    caller: Reader,
    user_id: Annotated[OwnerName | None, Query(description="only this user's; `~` = what the tenant shares")] = None,
    base: Annotated[BaseId | None, Query(description="only those with a version for this base model")] = None,
    alias: Annotated[Name | None, Query(description="only those that have this alias")] = None,
    suspended: Annotated[bool | None, Query(description="only those that are suspended, or are not")] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> AdapterPage:
    """List the tenant's adapters."""
    return await _registry(request).list_adapters(
        caller.tenant, user=user_id, base=base, alias=alias, suspended=suspended, cursor=cursor, limit=limit
    )


@router.get("/adapter-versions", responses=refusals())
async def find_versions(
    request: Request,
    caller: Reader,
    transcript: Annotated[TranscriptId | None, Query(description="only those trained on this transcript")] = None,
    base: Annotated[BaseId | None, Query(description="only those trained for this base model")] = None,
    user_id: Annotated[OwnerName | None, Query(description="only this user's")] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> FoundVersionPage:
    """Find versions by what they came from: a transcript's id, a base model."""
    return await _registry(request).find_versions(
        caller.tenant, transcript=transcript, base=base, user=user_id, cursor=cursor, limit=limit
    )


@router.get(_ADAPTER, responses=refusals(404))
async def show_adapter(user: UserName, adapter: Name, request: Request, caller: Reader) -> AdapterDetail:
    """Show one adapter: aliases, live version, versions by state."""
    return await _registry(request).show_adapter(Owner(tenant=caller.tenant, user=user), adapter)


@router.get(_ADAPTER + "/versions", responses=refusals(404))
async def list_versions(
    user: UserName, adapter: Name, request: Request, caller: Reader, cursor: Cursor = None, limit: Limit = 100
) -> VersionPage:
    """List an adapter's versions in every state, the newest first."""
    owner = Owner(tenant=caller.tenant, user=user)
    return await _registry(request).page_versions(owner, adapter, cursor=cursor, limit=limit)


@router.get(_VERSION, responses=refusals(404))
async def show_version(
    user: UserName, adapter: Name, selector: Selector, request: Request, caller: Reader
) -> VersionDetail:
    """Show everything that is known of one version, whatever its state."""
    return await _version(request, caller, user, adapter, selector)


@router.get(_ADAPTER + "/difference", responses=refusals(404))
async def compare_versions(
    user: UserName,
    adapter: Name,
    request: Request,
    caller: Reader,
    old: Annotated[Name, Query(description="an alias, or a version number")],
    new: Annotated[Name, Query(description="an alias, or a version number")] = LIVE,
) -> Difference:
    """Compare two versions of an adapter: configuration, files, lineage, evaluation."""
    owner = Owner(tenant=caller.tenant, user=user)
    return await _registry(request).compare_versions(owner, adapter, old=old, new=new)


@router.get(_ADAPTER + "/history", responses=refusals(404))
async def history(
    user: UserName,
    adapter: Name,
    request: Request,
    caller: Reader,
    alias: Annotated[Name | None, Query(description="only this alias's")] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> AliasHistory:
    """List the moves of one alias, or of all, the newest first."""
    owner = Owner(tenant=caller.tenant, user=user)
    return await _registry(request).lifecycle.history(owner, adapter, alias=alias, cursor=cursor, limit=limit)


@router.get(_ADAPTER + "/aliases/{alias}", responses=refusals(404))
async def get_alias(user: UserName, adapter: Name, alias: Name, request: Request, caller: Reader) -> Alias:
    """Say which version an alias names."""
    found = await _registry(request).get_alias(Owner(tenant=caller.tenant, user=user), adapter, alias)
    if found is None:
        raise AliasNotFound(
            f"the tenant has no adapter {adapter!r} of that user with an alias {alias!r}", field="alias"
        )
    return Alias(alias=alias, version_id=found)


@router.put(_ADAPTER + "/aliases/{alias}", responses=refusals(404, 409))
async def move_alias(
    user: UserName, adapter: Name, alias: Name, move: AliasMove, request: Request, caller: Writer
) -> Alias:
    """Move an alias by compare-and-swap, if the tenant's gate lets it."""
    owner = Owner(tenant=caller.tenant, user=user)
    await _registry(request).move_alias(
        owner, adapter, alias, version_id=move.version_id, expected_version_id=move.expected_version_id, why=move.why
    )
    return Alias(alias=alias, version_id=move.version_id)


@router.post(_ADAPTER + "/promote", responses=refusals(404, 409))
async def promote(user: UserName, adapter: Name, promotion: Promotion, request: Request, caller: Writer) -> AliasMoved:
    """Let `live` name what `candidate` names, if the tenant's gate lets it; asking again is no error."""
    owner = Owner(tenant=caller.tenant, user=user)
    return await _registry(request).lifecycle.promote(owner, adapter, **promotion.model_dump())


@router.post(_ADAPTER + "/rollback", responses=refusals(404, 409))
async def rollback(user: UserName, adapter: Name, rollback: Rollback, request: Request, caller: Writer) -> AliasMoved:
    """Let `live` name what it named before."""
    owner = Owner(tenant=caller.tenant, user=user)
    return await _registry(request).lifecycle.rollback(owner, adapter, **rollback.model_dump())


@router.post(_ADAPTER + "/suspend", responses=refusals(404))
async def suspend_adapter(user: UserName, adapter: Name, body: Why, request: Request, caller: Writer) -> Suspension:
    """Stop an adapter from serving, everywhere and within seconds."""
    owner = Owner(tenant=caller.tenant, user=user)
    return await _registry(request).lifecycle.suspend(owner, adapter, why=body.why)


@router.post(_ADAPTER + "/resume", responses=refusals(404))
async def resume_adapter(user: UserName, adapter: Name, body: Why, request: Request, caller: Writer) -> AdapterDetail:
    """Let a suspended adapter serve again."""
    registry, owner = _registry(request), Owner(tenant=caller.tenant, user=user)
    await registry.lifecycle.resume(owner, adapter, why=body.why)
    return await registry.show_adapter(owner, adapter)


@router.post(_VERSION + "/suspend", responses=refusals(404, 409))
async def suspend_version(
    user: UserName, adapter: Name, selector: Selector, body: Why, request: Request, caller: Writer
) -> VersionState:
    """Stop a version from serving, everywhere and within seconds."""
    found = await _version(request, caller, user, adapter, selector)
    return await _registry(request).lifecycle.suspend_version(found.version_id, why=body.why)


@router.post(_VERSION + "/resume", responses=refusals(404, 409))
async def resume_version(
    user: UserName, adapter: Name, selector: Selector, body: Why, request: Request, caller: Writer
) -> VersionState:
    """Let a suspended version serve again."""
    found = await _version(request, caller, user, adapter, selector)
    return await _registry(request).lifecycle.resume_version(found.version_id, why=body.why)


@router.post(_VERSION + "/retire", responses=refusals(404, 409))
async def retire_version(
    user: UserName, adapter: Name, selector: Selector, body: Why, request: Request, caller: Writer
) -> VersionState:
    """Take a version that no alias names out of use for good."""
    found = await _version(request, caller, user, adapter, selector)
    return await _registry(request).lifecycle.retire_version(found.version_id, why=body.why)


async def _version(request: Request, caller: Caller, user: str, adapter: str, selector: str) -> VersionDetail:
    """Return one of the caller's own versions; the registry looks for it below the caller's tenant."""
    ref = AdapterRef(owner=Owner(tenant=caller.tenant, user=user), adapter=adapter, selector=selector)
    return await _registry(request).show_version(ref)
