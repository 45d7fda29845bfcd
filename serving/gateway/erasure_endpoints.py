"""Erasing a user, store by store: asking for it, and the report of what was done where."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request, Response

from serving.erasure.desk import ErasureDesk
from serving.erasure.report import ErasureReport
from serving.gateway.auth import Caller, needs
from serving.gateway.endpoints import UserId, refusals
from serving.gateway.erasing import Sign
from serving.gateway.scopes import Scope

router = APIRouter(prefix="/v1/users/{user_id}/erasure", tags=["erasure"], responses=refusals(404))
Eraser = Annotated[Caller, needs(Scope.ERASE)]


@router.post("", status_code=202)
async def erase_user(user_id: UserId, request: Request, response: Response, caller: Eraser) -> ErasureReport:
    """Erase everything of a user: what they said, what was made of it, and every copy of it in an engine.

    From this answer on, nothing of theirs is taken in, made or read (409 `being-erased`); other gateways refuse their
    adapter a second or two later at the latest. The erasure goes on by itself, also over restarts; `GET` says how far
    it is, and what it waits for. Asked again it is the same erasure.
    """
    desk: ErasureDesk = request.app.state.erasures
    sign: Sign = request.app.state.sign
    report = await desk.ask(caller.tenant, user_id, asked_by="api")
    if report.state == "running":
        sign.note_asked(caller.tenant, user_id)
    response.headers["location"] = request.url.path
    return report


@router.get("")
async def get_erasure(user_id: UserId, request: Request, caller: Eraser) -> ErasureReport:
    """Return what the user's erasure has done, store by store, and what it waits for; also when it has ended."""
    desk: ErasureDesk = request.app.state.erasures
    return await desk.report(caller.tenant, user_id)
