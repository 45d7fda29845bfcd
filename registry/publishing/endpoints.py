"""Routes of publishing: begin and complete."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from registry.access import Operator, refusals
from registry.manifest import Draft, Manifest, VersionId
from registry.publishing.publisher import Publisher
from registry.publishing.schemas import Publication

router = APIRouter(prefix="/v1", tags=["publishing"])


def get_publisher(request: Request) -> Publisher:
    """Return the process's publisher."""
    publisher: Publisher = request.app.state.publisher
    return publisher


PublisherDep = Annotated[Publisher, Depends(get_publisher)]


@router.post("/versions", responses=refusals(404, 409, 413))
async def begin(draft: Draft, publisher: PublisherDep, caller: Operator) -> Publication:
    """Claim a version and get URLs to upload its files; the same content again finds the same version."""
    return await publisher.begin(draft, actor=caller.actor)


@router.post("/versions/{version_id}/complete", responses=refusals(404, 409))
async def complete(version_id: VersionId, publisher: PublisherDep, caller: Operator) -> Manifest:
    """Verify what was uploaded and make the version ready; completing again is no error."""
    return await publisher.complete(version_id, actor=caller.actor)
