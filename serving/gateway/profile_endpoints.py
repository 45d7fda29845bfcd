"""A user's profile: the newest one that was extracted, a new one, a short one for an agent, and what changed."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response

from kit.canonical import sha256_bytes
from kit.conditional import matches
from kit.database import Database
from serving.errors import NotAcceptable, ProfileNotExtracted
from serving.extraction.corrections.shown import shown_difference
from serving.extraction.profile import Difference, Profile
from serving.extraction.render import render_markdown
from serving.extraction.render.context import LEAST_BUDGET_TOKENS, render_context
from serving.gateway.auth import Caller, needs
from serving.gateway.endpoints import UserId, refusals
from serving.gateway.hints import Hints
from serving.gateway.negotiation import preferred
from serving.gateway.profiles import Profiles
from serving.gateway.schemas import adapter_headers
from serving.gateway.scopes import Scope
from serving.gateway.upstream import unless_disconnected
from serving.gateway.usage.meter import Meter

router = APIRouter(prefix="/v1/users/{user_id}/profile", tags=["profiles"])
_JSON = "application/json"
_MARKDOWN = "text/markdown"
_DIGITS = 32
_MOST_BUDGET_TOKENS = 1_000_000
_PAGE: dict[int | str, dict[str, Any]] = {200: {"content": {_MARKDOWN: {"schema": {"type": "string"}}}}}
_ETAG = {"ETag": {"description": "changes whenever the answer does", "schema": {"type": "string"}}}
_FORMS: dict[int | str, dict[str, Any]] = {
    200: {"model": Profile, "content": {_MARKDOWN: {"schema": {"type": "string"}}}, "headers": _ETAG}
}
_WITHHELD: dict[int | str, dict[str, Any]] = {
    204: {"description": "It was extracted and kept; the key lacks the scope `profiles:read`, so it is not shown."}
}
_NOT_MODIFIED: dict[int | str, dict[str, Any]] = {
    304: {"description": "The caller has it already: `If-None-Match` named its ETag.", "headers": _ETAG}
}


@router.get("", response_model=None, responses={**_FORMS, **_NOT_MODIFIED, **refusals(404, 406, 409)})
async def get_profile(
    user_id: UserId,
    request: Request,
    caller: Annotated[Caller, needs(Scope.PROFILES_READ)],
    if_none_match: Annotated[str | None, Header(description="the ETag of an answer that the caller has")] = None,
) -> Response:
    """Return the newest profile of a user, as JSON or (`Accept: text/markdown`) to read.

    Who reads a profile often asks a question next, so the engine hears of it.
    """
    form = _accepted(request)
    profiles: Profiles = request.app.state.profiles
    hints: Hints = request.app.state.hints
    profile = await profiles.require(caller.tenant, user_id)
    hints.expect_live(caller.tenant, user_id)
    return _profile_response(profile, form, if_none_match=if_none_match)


@router.post("", response_model=None, responses={**_FORMS, **_WITHHELD, **refusals(400, 404, 406, 409, 502)})
async def extract_profile(
    user_id: UserId, request: Request, caller: Annotated[Caller, needs(Scope.PROFILES_WRITE)]
) -> Response:
    """Extract the user's profile now with the live adapter version, keep it, and return it.

    It takes up to a minute on a CPU engine. A key without the scope `profiles:read` is told that it was done (204).
    """
    form = _accepted(request) if caller.may(Scope.PROFILES_READ) else None
    profiles: Profiles = request.app.state.profiles
    meter: Meter = request.app.state.meter
    profile = await unless_disconnected(request, profiles.extract(caller.tenant, user_id))
    meter.count(caller.tenant, user_id)
    if form is None:
        return Response(status_code=204, headers=adapter_headers(profile.adapter.version))
    request.state.quoted = profile.transcript_ids()
    return _profile_response(profile, form)


@router.get("/context", response_class=Response, responses={**_PAGE, **refusals(404, 409)})
async def get_context(
    user_id: UserId,
    request: Request,
    caller: Annotated[Caller, needs(Scope.PROFILES_READ)],
    budget_tokens: Annotated[
        int | None,
        Query(ge=LEAST_BUDGET_TOKENS, le=_MOST_BUDGET_TOKENS, description="most tokens, each taken as three bytes"),
    ] = None,
) -> Response:
    """Return the newest profile as short Markdown, the surest facts first, for an agent's context window."""
    profiles: Profiles = request.app.state.profiles
    profile = await profiles.require(caller.tenant, user_id)
    page = render_context(profile, budget_tokens=budget_tokens)
    return Response(page, media_type=f"{_MARKDOWN}; charset=utf-8", headers=adapter_headers(profile.adapter.version))


@router.get("/difference", responses=refusals(404))
async def get_difference(
    user_id: UserId, request: Request, caller: Annotated[Caller, needs(Scope.PROFILES_READ)]
) -> Difference:
    """Return what changed from the profile before the newest one to the newest."""
    database: Database = request.app.state.database
    async with database.reading() as session:
        found = await shown_difference(session, caller.tenant, user_id)
    if found is None:
        raise ProfileNotExtracted(f"nothing is kept of how a profile of {user_id!r} differs from the one before")
    return found


def _accepted(request: Request) -> str:
    form = preferred(request.headers.get("accept", ""), offers=(_JSON, _MARKDOWN))
    if form is None:
        raise NotAcceptable(f"a profile comes as {_JSON} or {_MARKDOWN}", field="accept")
    return form


def _profile_response(profile: Profile, form: str, *, if_none_match: str | None = None) -> Response:
    content = profile.to_bytes() if form == _JSON else render_markdown(profile).encode()
    tag = sha256_bytes(content)[:_DIGITS]
    headers = {
        **adapter_headers(profile.adapter.version),
        "etag": f'"{tag}"',
        "cache-control": "private, no-cache",
        "vary": "accept",
    }
    if matches(if_none_match, tag):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=form if form == _JSON else f"{form}; charset=utf-8", headers=headers)
