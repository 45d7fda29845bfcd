"""Routes of steering: aliases, suspension, retirement, erasure, evaluation, policy, audit."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query

from kit.conditional import tags
from kit.names import Name
from registry.access import Operator, keep_secret, refusals
from registry.catalog.cursor import MAX_CURSOR
from registry.catalog.schemas import Alias
from registry.errors import AliasConflict, InvalidReference, PreconditionFailed
from registry.lifecycle.aliases import Aliases
from registry.lifecycle.audit import AuditTrail
from registry.lifecycle.erasure import Eraser
from registry.lifecycle.evaluations import Evaluations
from registry.lifecycle.forgetting.forgetter import Forgetter
from registry.lifecycle.policy import TenantPolicy
from registry.lifecycle.policy_book import PolicyBook
from registry.lifecycle.schemas import (
    AliasHistory,
    AliasMove,
    AliasMoved,
    AuditPage,
    Erasure,
    Evaluation,
    EvaluationReport,
    OwnerErased,
    OwnerForgotten,
    OwnerRemains,
    PolicyChange,
    Promotion,
    Rollback,
    Suspension,
    SuspensionPage,
    Tombstone,
    VersionState,
    Why,
)
from registry.lifecycle.standing import Standing
from registry.manifest import Owner, OwnerName, VersionId
from registry.services import service

router = APIRouter(prefix="/v1", tags=["lifecycle"])
_TENANT = "/tenants/{tenant}"
_USER = _TENANT + "/users/{user}"
_ADAPTER = _USER + "/adapters/{adapter}"
_VERSION = "/versions/{version_id}"
_UNKEPT = [
    Depends(keep_secret)
]  # these answers hold reports, names or free text, which an erasure must not have to find

Cursor = Annotated[str | None, Query(max_length=MAX_CURSOR)]
Limit = Annotated[int, Query(ge=1, le=1000)]


AliasesDep = Annotated[Aliases, Depends(service(Aliases))]
StandingDep = Annotated[Standing, Depends(service(Standing))]
EraserDep = Annotated[Eraser, Depends(service(Eraser))]
ForgetterDep = Annotated[Forgetter, Depends(service(Forgetter))]
EvaluationsDep = Annotated[Evaluations, Depends(service(Evaluations))]
PoliciesDep = Annotated[PolicyBook, Depends(service(PolicyBook))]
AuditDep = Annotated[AuditTrail, Depends(service(AuditTrail))]


@router.put(_ADAPTER + "/aliases/{alias}", responses=refusals(404, 409, 412))
async def move_alias(
    tenant: Name,
    user: OwnerName,
    adapter: Name,
    alias: Name,
    move: AliasMove,
    aliases: AliasesDep,
    caller: Operator,
    if_match: Annotated[str | None, Header(description="the alias's ETag, instead of `expected_version_id`")] = None,
    if_none_match: Annotated[str | None, Header(description="`*`: the alias must not exist yet")] = None,
) -> Alias:
    """Move an alias by compare-and-swap."""
    conditional = if_match is not None or if_none_match is not None
    if conditional:
        move = move.model_copy(update={"expected_version_id": _expected(if_match, if_none_match, move)})
    try:
        await aliases.move_alias(Owner(tenant=tenant, user=user), adapter, alias, move=move, actor=caller.actor)
    except AliasConflict as exc:
        if conditional:
            raise PreconditionFailed(exc.message, field="if-match", **exc.details) from exc
        raise
    return Alias(alias=alias, version_id=move.version_id)


def _expected(if_match: str | None, if_none_match: str | None, move: AliasMove) -> str | None:
    """Return the version id that a conditional move expects the alias to name; None = no such alias yet."""
    if if_none_match is not None:
        if if_none_match.strip() != "*" or if_match is not None:
            raise InvalidReference(
                "a move is conditional on `If-None-Match: *` or on `If-Match`", field="if-none-match"
            )
        return None
    named = tags(if_match or "")
    if len(named) != 1 or move.expected_version_id not in (None, named[0]):
        raise InvalidReference("`If-Match` must be the one ETag that the alias was read with", field="if-match")
    return named[0]


@router.post(_ADAPTER + "/promote", responses=refusals(404, 409, 413))
async def promote(
    tenant: Name, user: OwnerName, adapter: Name, promotion: Promotion, aliases: AliasesDep, caller: Operator
) -> AliasMoved:
    """Let `live` name what `candidate` names, if the tenant's gate lets it; asking again is no error."""
    return await aliases.promote(Owner(tenant=tenant, user=user), adapter, promotion, actor=caller.actor)


@router.post(_ADAPTER + "/rollback", responses=refusals(404, 409, 413))
async def rollback(
    tenant: Name, user: OwnerName, adapter: Name, rollback: Rollback, aliases: AliasesDep, caller: Operator
) -> AliasMoved:
    """Let `live` name what it named before."""
    return await aliases.rollback(Owner(tenant=tenant, user=user), adapter, rollback, actor=caller.actor)


@router.get(_ADAPTER + "/history", responses=refusals(404))
async def history(
    tenant: Name,
    user: OwnerName,
    adapter: Name,
    aliases: AliasesDep,
    caller: Operator,
    alias: Name | None = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> AliasHistory:
    """List the moves of one alias, or of all, the newest first."""
    owner = Owner(tenant=tenant, user=user)
    return await aliases.history(owner, adapter, alias=alias, cursor=cursor, limit=limit)


@router.post(_VERSION + "/suspend", responses=refusals(404, 409, 413), dependencies=_UNKEPT)
async def suspend_version(version_id: VersionId, body: Why, standing: StandingDep, caller: Operator) -> VersionState:
    """Stop a version from serving, everywhere and within seconds."""
    return await standing.suspend_version(version_id, why=body.why, actor=caller.actor)


@router.post(_VERSION + "/resume", responses=refusals(404, 409, 413), dependencies=_UNKEPT)
async def resume_version(version_id: VersionId, body: Why, standing: StandingDep, caller: Operator) -> VersionState:
    """Let a suspended version serve again."""
    return await standing.resume_version(version_id, why=body.why, actor=caller.actor)


@router.post(_VERSION + "/retire", responses=refusals(404, 409, 413), dependencies=_UNKEPT)
async def retire_version(version_id: VersionId, body: Why, standing: StandingDep, caller: Operator) -> VersionState:
    """Take a version out of use for good; its bytes are removed later."""
    return await standing.retire_version(version_id, why=body.why, actor=caller.actor)


@router.post(_VERSION + "/erase", responses=refusals(404, 409, 413), dependencies=_UNKEPT)
async def erase_version(version_id: VersionId, erasure: Erasure, eraser: EraserDep, caller: Operator) -> Tombstone:
    """Leave nothing of a version but ids and times; erasing again is no error."""
    return await eraser.erase_version(version_id, erasure, actor=caller.actor)


@router.post(_USER + "/erase", responses=refusals(409, 413), dependencies=_UNKEPT)
async def erase_owner(
    tenant: Name, user: OwnerName, erasure: Erasure, eraser: EraserDep, caller: Operator
) -> OwnerErased:
    """Leave nothing of a user's adapters but ids and times, and destroy their data key; again is no error."""
    return await eraser.erase_owner(Owner(tenant=tenant, user=user), erasure, actor=caller.actor)


@router.get(_USER + "/remains", responses=refusals())
async def owner_remains(tenant: Name, user: OwnerName, forgetter: ForgetterDep, caller: Operator) -> OwnerRemains:
    """Count what there is of a user, and name the engines that hold any of it."""
    return await forgetter.remains(Owner(tenant=tenant, user=user))


@router.post(_USER + "/forget", responses=refusals(), dependencies=_UNKEPT)
async def forget_owner(tenant: Name, user: OwnerName, forgetter: ForgetterDep, caller: Operator) -> OwnerForgotten:
    """Take the name of a user who was erased out of their tombstones, once no byte and no engine holds anything."""
    return await forgetter.forget_owner(Owner(tenant=tenant, user=user), actor=caller.actor)


@router.post(_USER + "/suspend", responses=refusals(404, 413), dependencies=_UNKEPT)
async def suspend_owner(
    tenant: Name, user: OwnerName, body: Why, standing: StandingDep, caller: Operator
) -> Suspension:
    """Stop all of a user's adapters from serving, everywhere and within seconds."""
    return await standing.suspend(Owner(tenant=tenant, user=user), None, why=body.why, actor=caller.actor)


@router.post(_USER + "/resume", responses=refusals(404, 413), dependencies=_UNKEPT)
async def resume_owner(
    tenant: Name, user: OwnerName, body: Why, standing: StandingDep, caller: Operator
) -> dict[str, str]:
    """Let a suspended user serve again."""
    await standing.resume(Owner(tenant=tenant, user=user), None, why=body.why, actor=caller.actor)
    return {"state": "serving"}


@router.post(_ADAPTER + "/suspend", responses=refusals(404, 413), dependencies=_UNKEPT)
async def suspend_adapter(
    tenant: Name, user: OwnerName, adapter: Name, body: Why, standing: StandingDep, caller: Operator
) -> Suspension:
    """Stop one adapter from serving, everywhere and within seconds."""
    return await standing.suspend(Owner(tenant=tenant, user=user), adapter, why=body.why, actor=caller.actor)


@router.post(_ADAPTER + "/resume", responses=refusals(404, 413), dependencies=_UNKEPT)
async def resume_adapter(
    tenant: Name, user: OwnerName, adapter: Name, body: Why, standing: StandingDep, caller: Operator
) -> dict[str, str]:
    """Let a suspended adapter serve again."""
    await standing.resume(Owner(tenant=tenant, user=user), adapter, why=body.why, actor=caller.actor)
    return {"state": "serving"}


@router.get(_TENANT + "/suspensions", responses=refusals())
async def list_suspensions(
    tenant: Name, standing: StandingDep, caller: Operator, cursor: Cursor = None, limit: Limit = 100
) -> SuspensionPage:
    """List a tenant's suspended users and adapters."""
    return await standing.list_suspensions(tenant, cursor=cursor, limit=limit)


@router.post(_VERSION + "/evaluations", responses=refusals(404, 409, 413), dependencies=_UNKEPT)
async def attach_evaluation(
    version_id: VersionId, body: Evaluation, evaluations: EvaluationsDep, caller: Operator
) -> EvaluationReport:
    """Attach an evaluation report, at which gates look from now on; the same one again is no error."""
    return await evaluations.attach(version_id, body.report, actor=caller.actor)


@router.get(_VERSION + "/evaluations", responses=refusals(404))
async def list_evaluations(
    version_id: VersionId, evaluations: EvaluationsDep, caller: Operator
) -> list[EvaluationReport]:
    """List the reports that were attached to a version, the newest first, at most 100."""
    return await evaluations.list(version_id)


@router.get("/audit", responses=refusals())
async def audit_of_all(audit: AuditDep, caller: Operator, cursor: Cursor = None, limit: Limit = 100) -> AuditPage:
    """List everything that happened, the newest first: also to base models, engines, keys and policies."""
    return await audit.of_all(cursor=cursor, limit=limit)


@router.get(_VERSION + "/audit", responses=refusals(404))
async def audit_of_version(
    version_id: VersionId, audit: AuditDep, caller: Operator, cursor: Cursor = None, limit: Limit = 100
) -> AuditPage:
    """List what happened to a version, the newest first."""
    return await audit.of_version(version_id, cursor=cursor, limit=limit)


@router.get(_ADAPTER + "/audit", responses=refusals(404))
async def audit_of_adapter(
    tenant: Name,
    user: OwnerName,
    adapter: Name,
    audit: AuditDep,
    caller: Operator,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> AuditPage:
    """List what happened to an adapter and to its whole owner, the newest first."""
    return await audit.of_adapter(Owner(tenant=tenant, user=user), adapter, cursor=cursor, limit=limit)


@router.get(_USER + "/audit", responses=refusals())
async def audit_of_owner(
    tenant: Name, user: OwnerName, audit: AuditDep, caller: Operator, cursor: Cursor = None, limit: Limit = 100
) -> AuditPage:
    """List what was done to a user and their adapters, the newest first; also after the user was erased."""
    return await audit.of_owner(Owner(tenant=tenant, user=user), cursor=cursor, limit=limit)


@router.get(_TENANT + "/policy", responses=refusals())
async def get_policy(tenant: Name, policies: PoliciesDep, caller: Operator) -> TenantPolicy:
    """Return a tenant's policy: limits, gates, retention."""
    return await policies.get(tenant)


@router.put(_TENANT + "/policy", responses=refusals(413))
async def put_policy(tenant: Name, change: PolicyChange, policies: PoliciesDep, caller: Operator) -> TenantPolicy:
    """Replace a tenant's policy."""
    return await policies.put(tenant, change.policy, actor=caller.actor, why=change.why or None)
