"""A profile for an agent's context window, and what changed in it since the one before."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from kit.database import Database
from serving.errors import ProfileNotExtracted
from serving.extraction.corrections.shown import shown_difference
from serving.extraction.profile import Difference
from serving.extraction.render.context import LEAST_BUDGET_TOKENS, render_context
from serving.gateway.auth import CallerDep
from serving.gateway.endpoints import UserId, refusals
from serving.gateway.profiles import Profiles
from serving.gateway.schemas import adapter_headers

router = APIRouter(prefix="/v1/users/{user_id}/profile", tags=["profiles"], responses=refusals(401, 404, 422, 503))
_MARKDOWN = "text/markdown; charset=utf-8"
_MOST_BUDGET_TOKENS = 1_000_000
_PAGE = {"content": {"text/markdown": {"schema": {"type": "string"}}}}


@router.get("/context", response_class=Response, responses={200: _PAGE, **refusals(409)})
async def get_context(
    user_id: UserId,
    request: Request,
    caller: CallerDep,
    budget_tokens: Annotated[
        int | None,
        Query(ge=LEAST_BUDGET_TOKENS, le=_MOST_BUDGET_TOKENS, description="most tokens, each taken as three bytes"),
    ] = None,
) -> Response:
    """Return the newest profile as short Markdown, the surest facts first, for an agent's context window."""
    profiles: Profiles = request.app.state.profiles
    profile = await profiles.require(caller.tenant, user_id)
    page = render_context(profile, budget_tokens=budget_tokens)
    return Response(page, media_type=_MARKDOWN, headers=adapter_headers(profile.adapter.version))


@router.get("/difference")
async def get_difference(user_id: UserId, request: Request, caller: CallerDep) -> Difference:
    """Return what changed from the profile before the newest one to the newest."""
    database: Database = request.app.state.database
    async with database.reading() as session:
        found = await shown_difference(session, caller.tenant, user_id)
    if found is None:
        raise ProfileNotExtracted(f"nothing is kept of how a profile of {user_id!r} differs from the one before")
    return found
