"""Routes of the engine directory."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from kit.names import Name
from registry.access import Caller, Engine, Operator, Role, refusals
from registry.engines.directory import EngineDirectory
from registry.engines.schemas import EnginePage, EngineSummary, Farewell, Heartbeat, Holder, Orders, Registration
from registry.errors import Forbidden
from registry.manifest import VersionId
from registry.services import service

router = APIRouter(prefix="/v1", tags=["engines"])


def speak_for(engine_id: Name, caller: Engine) -> Caller:
    """Let an engine speak for itself only; whose secret the incarnation is decides, its name is checked first."""
    if caller.role is Role.ENGINE and caller.actor != engine_id:
        raise Forbidden("an engine speaks for itself only: x-lorry-actor is not this engine", field="engine_id")
    return caller


DirectoryDep = Annotated[EngineDirectory, Depends(service(EngineDirectory))]
Speaker = Annotated[Caller, Depends(speak_for)]


@router.put("/engines/{engine_id}", responses=refusals(409, 413))
async def register(engine_id: Name, registration: Registration, directory: DirectoryDep, caller: Speaker) -> Orders:
    """Take in an engine that has started, and tell it what it must not serve or keep."""
    return await directory.register(engine_id, registration, actor=caller.actor)


@router.post("/engines/{engine_id}/heartbeat", responses=refusals(404, 409, 413))
async def heartbeat(engine_id: Name, heartbeat: Heartbeat, directory: DirectoryDep, caller: Speaker) -> Orders:
    """Note that an engine lives, and tell it what it must not serve or keep."""
    return await directory.heartbeat(engine_id, heartbeat)


@router.post("/engines/{engine_id}/leave", responses=refusals(409))
async def leave(engine_id: Name, farewell: Farewell, directory: DirectoryDep, caller: Speaker) -> dict[str, str]:
    """Note that an engine stops."""
    await directory.leave(engine_id, farewell.incarnation, actor=caller.actor)
    return {"state": "left"}


@router.delete("/engines/{engine_id}", responses=refusals(404, 409))
async def forget(engine_id: Name, directory: DirectoryDep, caller: Operator) -> dict[str, str]:
    """Remove an engine that lapsed or left and will not come back."""
    await directory.forget(engine_id, actor=caller.actor)
    return {"state": "forgotten"}


@router.get("/engines", responses=refusals())
async def list_engines(
    directory: DirectoryDep,
    caller: Operator,
    cursor: Name | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> EnginePage:
    """List engines, page by page: alive, lapsed, and those that left within a day."""
    return await directory.list_engines(cursor=cursor, limit=limit)


@router.get("/engines/{engine_id}", responses=refusals(404))
async def get_engine(engine_id: Name, directory: DirectoryDep, caller: Operator) -> EngineSummary:
    """Show one engine."""
    return await directory.get(engine_id)


@router.get("/versions/{version_id}/holders", responses=refusals(404))
async def list_holders(version_id: VersionId, directory: DirectoryDep, caller: Operator) -> list[Holder]:
    """Say which engines hold a version, in which tier, and how many requests run on it."""
    return await directory.holders(version_id)
