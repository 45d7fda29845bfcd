"""Routes of publishing: bases, begin, parts, complete, validation, grants."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query

from kit.names import Name
from registry.access import Engine, Operator, Role, keep_secret, refusals
from registry.engines.schemas import Incarnation, Presence
from registry.errors import Forbidden
from registry.manifest import Draft, Manifest, RegisteredBase, VersionId
from registry.publishing.bases import BaseModels
from registry.publishing.grants import Grants
from registry.publishing.publisher import Publisher
from registry.publishing.schemas import (
    BaseRegistration,
    Grant,
    PartsWanted,
    Preference,
    Publication,
    SignedParts,
    Validation,
)
from registry.services import service

router = APIRouter(prefix="/v1", tags=["publishing"])


def get_presence(
    engine_id: Annotated[Name | None, Header(alias="x-lorry-engine", description="the engine that asks")] = None,
    incarnation: Annotated[
        Incarnation | None, Header(alias="x-lorry-incarnation", description="what that engine registered with")
    ] = None,
) -> Presence | None:
    """Return which start of which engine asks, where one does."""
    if engine_id is None or incarnation is None:
        return None
    return Presence(engine_id=engine_id, incarnation=incarnation)


PublisherDep = Annotated[Publisher, Depends(service(Publisher))]
GrantsDep = Annotated[Grants, Depends(service(Grants))]
BasesDep = Annotated[BaseModels, Depends(service(BaseModels))]


@router.post("/bases", responses=refusals(409, 413))
async def register_base(registration: BaseRegistration, bases: BasesDep, caller: Operator) -> RegisteredBase:
    """Make a base model known; registering the same one again is no error."""
    return await bases.register(registration, actor=caller.actor)


@router.get("/bases", responses=refusals())
async def list_bases(bases: BasesDep, caller: Operator) -> list[RegisteredBase]:
    """List the base models that adapters may be made for."""
    return await bases.list_all()


@router.post("/versions", responses=refusals(404, 409, 413), dependencies=[Depends(keep_secret)])
async def begin(
    draft: Draft,
    publisher: PublisherDep,
    caller: Operator,
    upload: Annotated[
        Preference, Query(description="`open`: the registry seals the weights; `sealed`: the publisher does")
    ] = Preference.OPEN,
) -> Publication:
    """Claim a version and learn where to upload it; the same content again finds the same version."""
    return await publisher.begin(draft, preference=upload, actor=caller.actor)


@router.post("/versions/{version_id}/parts", responses=refusals(404, 409, 413), dependencies=[Depends(keep_secret)])
async def sign_parts(
    version_id: VersionId, wanted: PartsWanted, publisher: PublisherDep, caller: Operator
) -> SignedParts:
    """Get URLs for parts of weights that are too large for one PUT."""
    return await publisher.sign_parts(version_id, wanted.parts, actor=caller.actor)


@router.post("/versions/{version_id}/complete", responses=refusals(404, 409), dependencies=[Depends(keep_secret)])
async def complete(version_id: VersionId, publisher: PublisherDep, caller: Operator) -> Manifest:
    """Verify and validate what was uploaded and make the version ready; completing again is no error."""
    return await publisher.complete(version_id, actor=caller.actor)


@router.get("/versions/{version_id}/validation", responses=refusals(404))
async def get_validation(version_id: VersionId, publisher: PublisherDep, caller: Operator) -> Validation:
    """Say what was found when a version was completed."""
    return await publisher.get_validation(version_id)


@router.get("/versions/{version_id}/grant", responses=refusals(404, 409), dependencies=[Depends(keep_secret)])
async def grant(
    version_id: VersionId,
    grants: GrantsDep,
    caller: Engine,
    presence: Annotated[Presence | None, Depends(get_presence)],
) -> Grant:
    """Get what it takes to install a version: a short-lived URL, and the key of its content.

    An engine shows in headers that it is registered and alive; it gets only versions of the base model that it serves.
    """
    if caller.role is Role.ENGINE and presence is None:
        raise Forbidden("an engine says who it is: x-lorry-engine and x-lorry-incarnation are missing")
    return await grants.grant(version_id, engine=presence)
