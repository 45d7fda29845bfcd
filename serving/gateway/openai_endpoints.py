"""OpenAI's routes: chat completions and models, one model being one user's adapter."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import JSONResponse, Response

from registry.client import RegistryClient
from registry.manifest import DEFAULT_ADAPTER, LIVE, Owner
from serving.gateway.adapters import Adapters, parse_model
from serving.gateway.answerers import Answerers, Fallback, allowed_fallback
from serving.gateway.auth import Caller, needs
from serving.gateway.body_route import BodyRoute
from serving.gateway.chat_stream import chunks
from serving.gateway.endpoints import EVENTS, refusals
from serving.gateway.hints import Hints
from serving.gateway.schemas import ChatRequest, Model, ModelList
from serving.gateway.scopes import Scope
from serving.gateway.upstream import EngineEvents, Upstream, unless_disconnected

router = APIRouter(prefix="/v1", tags=["openai"], route_class=BodyRoute)
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "OpenAI's chat completion, or its chunks", "content": {"application/json": {}, **EVENTS}}
}
Chatter = Annotated[Caller, needs(Scope.CHAT)]


@router.post("/chat/completions", response_model=None, responses={**_ANSWERS, **refusals(400, 404, 409, 502)})
async def chat_completions(
    body: ChatRequest,
    request: Request,
    caller: Chatter,
    x_lorry_fallback: Annotated[
        Fallback | None, Header(description="without an adapter, let the base answer with the profile in its prompt")
    ] = None,
) -> Response:
    """Complete a chat with a user's adapter: `model` is `users/<user_id>`, with `@<alias or version>` if not live."""
    answerers: Answerers = request.app.state.answerers
    upstream: Upstream = request.app.state.upstream
    ref = parse_model(body.model, tenant=caller.tenant)
    request.state.user = ref.owner.user
    answerer = await answerers.choose(ref, fallback=allowed_fallback(caller, x_lorry_fallback or body.fallback))
    payload = body.to_engine(answerer.model, answerer.prepare(body.messages))
    if body.stream:

        def render(events: EngineEvents) -> AsyncIterator[bytes]:
            return chunks(events, theirs=answerer.model, ours=body.model, with_usage=body.wants_usage)

        return await unless_disconnected(request, upstream.stream(payload, answerer, render=render))
    answer = await unless_disconnected(request, upstream.answer(payload, answerer))
    named = {**answer, "model": body.model, **({"fallback": answerer.fallback} if answerer.fallback else {})}
    return JSONResponse(named, headers=answerer.headers)


@router.get("/models", responses=refusals())
async def list_models(
    request: Request,
    caller: Chatter,
    limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
    cursor: Annotated[str | None, Query(max_length=400)] = None,
) -> ModelList:
    """List the caller's own adapters that have a live version."""
    registry: RegistryClient = request.app.state.registry
    page = await registry.list_adapters(caller.tenant, cursor=cursor, limit=limit)
    models = [
        _model(found.owner, found.adapter, created_at=found.created_at)
        for found in page.adapters
        if LIVE in found.aliases
    ]
    return ModelList(data=models, next_cursor=page.next_cursor)


@router.get("/models/{model:path}", responses=refusals(404, 409))
async def get_model(model: str, request: Request, caller: Chatter) -> Model:
    """Describe one of the caller's own models."""
    adapters: Adapters = request.app.state.adapters
    hints: Hints = request.app.state.hints
    ref = parse_model(model, tenant=caller.tenant)
    request.state.user = ref.owner.user
    manifest = await adapters.require(ref)
    hints.expect(manifest, kind="live")
    return Model(id=model, created=int(manifest.created_at.timestamp()), owned_by=caller.tenant)


def _model(owner: Owner, adapter: str, *, created_at: datetime) -> Model:
    name = "" if adapter == DEFAULT_ADAPTER else f"/{adapter}"
    return Model(id=f"users/{owner.user}{name}", created=int(created_at.timestamp()), owned_by=owner.tenant)
