"""Routes of upkeep: retention and reconcile, a page a call."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from registry.access import Operator, keep_secret, refusals
from registry.lifecycle.upkeep.reconcile import Reconciler
from registry.lifecycle.upkeep.retention import Retention
from registry.lifecycle.upkeep.schemas import PassPage, Reconcile, Retain
from registry.services import service

# Findings hold keys, and keys hold names.
router = APIRouter(prefix="/v1/maintenance", tags=["maintenance"], dependencies=[Depends(keep_secret)])


@router.post("/retain", responses=refusals(413))
async def retain(
    body: Retain, retention: Annotated[Retention, Depends(service(Retention))], caller: Operator
) -> PassPage:
    """Retire superfluous versions and remove retired bytes, one page; call again until there is no next one."""
    return await retention.run(body, actor=caller.actor)


@router.post("/reconcile", responses=refusals(409, 413))
async def reconcile(
    body: Reconcile, reconciler: Annotated[Reconciler, Depends(service(Reconciler))], caller: Operator
) -> PassPage:
    """Let tables and object store agree again, one page; call again until there is no next one."""
    return await reconciler.run(body, actor=caller.actor)
