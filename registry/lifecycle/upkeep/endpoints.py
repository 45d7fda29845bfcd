"""Routes of upkeep: retention and reconcile, a page a call."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from registry.access import Operator, keep_secret, refusals
from registry.lifecycle.upkeep.reconcile import Reconciler
from registry.lifecycle.upkeep.retention import Retention
from registry.lifecycle.upkeep.schemas import PassPage, Reconcile, Retain

# Findings hold keys, and keys hold names.
router = APIRouter(prefix="/v1/maintenance", tags=["maintenance"], dependencies=[Depends(keep_secret)])


def get_retention(request: Request) -> Retention:
    """Return what lets go of old versions."""
    retention: Retention = request.app.state.retention
    return retention


def get_reconciler(request: Request) -> Reconciler:
    """Return what puts right what does not agree."""
    reconciler: Reconciler = request.app.state.reconciler
    return reconciler


@router.post("/retain", responses=refusals(413))
async def retain(body: Retain, retention: Annotated[Retention, Depends(get_retention)], caller: Operator) -> PassPage:
    """Retire superfluous versions and remove retired bytes, one page; call again until there is no next one."""
    return await retention.run(body, actor=caller.actor)


@router.post("/reconcile", responses=refusals(409, 413))
async def reconcile(
    body: Reconcile, reconciler: Annotated[Reconciler, Depends(get_reconciler)], caller: Operator
) -> PassPage:
    """Let tables and object store agree again, one page; call again until there is no next one."""
    return await reconciler.run(body, actor=caller.actor)
