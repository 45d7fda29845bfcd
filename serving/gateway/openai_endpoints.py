"""OpenAI's routes: chat completions and models, one model being one user's adapter."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from registry.client import RegistryClient
from registry.manifest import DEFAULT_ADAPTER, LIVE, Owner
from serving.extraction.engine_client import EngineClient
from serving.gateway.adapters import Adapters, parse_model
from serving.gateway.auth import CallerDep
from serving.gateway.endpoints import refusals
from serving.gateway.hints import Hints
from serving.gateway.schemas import ChatRequest, Model, ModelList, adapter_headers
from serving.gateway.upstream import answer_chat, stream_chat, unless_disconnected

router = APIRouter(prefix="/v1", tags=["openai"], responses=refusals(401, 413, 422, 503))


@router.post("/chat/completions", response_model=None, responses=refusals(400, 404, 409, 429, 502, 504))
async def chat_completions(body: ChatRequest, request: Request, caller: CallerDep) -> Response:
    """Complete a chat with a user's adapter: `model` is `users/<user_id>`, with `@<alias or version>` if not live."""
    adapters: Adapters = request.app.state.adapters
    engine: EngineClient = request.app.state.engine
    manifest = await adapters.require(parse_model(body.model, tenant=caller.tenant))
    if body.stream:
        return await unless_disconnected(request, stream_chat(engine, body, manifest))
    answer = await unless_disconnected(request, answer_chat(engine, body, manifest))
    return JSONResponse(answer, headers=adapter_headers(manifest.version))


@router.get("/models")
async def list_models(
    request: Request,
    caller: CallerDep,
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
async def get_model(model: str, request: Request, caller: CallerDep) -> Model:
    """Describe one of the caller's own models."""
    adapters: Adapters = request.app.state.adapters
    hints: Hints = request.app.state.hints
    manifest = await adapters.require(parse_model(model, tenant=caller.tenant))
    hints.expect(manifest, kind="live")
    return Model(id=model, created=int(manifest.created_at.timestamp()), owned_by=caller.tenant)


def _model(owner: Owner, adapter: str, *, created_at: datetime) -> Model:
    name = "" if adapter == DEFAULT_ADAPTER else f"/{adapter}"
    return Model(id=f"users/{owner.user}{name}", created=int(created_at.timestamp()), owned_by=owner.tenant)
