"""What can be asked about a user: their profile, and questions to their adapter."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from kit.names import Name
from serving.errors import AnswerTruncated, EngineAnswerUnusable, NotAcceptable
from serving.extraction.engine_client import EngineClient
from serving.extraction.profile import Profile
from serving.extraction.render import render_markdown
from serving.gateway.adapters import Adapters
from serving.gateway.auth import CallerDep
from serving.gateway.hints import Hints
from serving.gateway.negotiation import preferred
from serving.gateway.profiles import Profiles
from serving.gateway.schemas import Problem, QueryRequest, QueryResponse, adapter_headers, adapter_version
from serving.gateway.upstream import unless_disconnected

UserId = Annotated[Name, Path(description="the tenant's own name for the user")]
_JSON = "application/json"
_MARKDOWN = "text/markdown"
_PROFILE_FORMS: dict[int | str, dict[str, Any]] = {
    200: {"model": Profile, "content": {_MARKDOWN: {"schema": {"type": "string"}}}}
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI description of how routes refuse."""
    return {status: {"model": Problem} for status in statuses}


router = APIRouter(prefix="/v1/users/{user_id}", tags=["users"], responses=refusals(401, 404, 409, 413, 422, 503))


@router.get("/profile", response_model=None, responses={**_PROFILE_FORMS, **refusals(406)})
async def get_profile(user_id: UserId, request: Request, caller: CallerDep) -> Response:
    """Return the newest profile of a user, as JSON or (`Accept: text/markdown`) to read.

    Who reads a profile often asks a question next, so the engine hears of it.
    """
    form = _accepted(request)
    profiles: Profiles = request.app.state.profiles
    hints: Hints = request.app.state.hints
    profile = await profiles.require(caller.tenant, user_id)
    hints.expect_live(caller.tenant, user_id)
    return _profile_response(profile, form)


@router.post("/profile", response_model=None, responses={**_PROFILE_FORMS, **refusals(406, 502, 504)})
async def extract_profile(user_id: UserId, request: Request, caller: CallerDep) -> Response:
    """Extract the user's profile now with the live adapter version, keep it, and return it.

    It takes up to a minute on a CPU engine.
    """
    form = _accepted(request)
    profiles: Profiles = request.app.state.profiles
    profile = await unless_disconnected(request, profiles.extract(caller.tenant, user_id))
    return _profile_response(profile, form)


@router.post("/query", response_model=QueryResponse, responses=refusals(400, 429, 502, 504))
async def query(
    user_id: UserId, body: QueryRequest, request: Request, response: Response, caller: CallerDep
) -> QueryResponse:
    """Ask the user's live adapter one question; with a `schema`, the answer is JSON of that shape."""
    adapters: Adapters = request.app.state.adapters
    engine: EngineClient = request.app.state.engine
    manifest = await adapters.require_live(caller.tenant, user_id)
    question = _question(body, version_id=manifest.version_id)
    headers = engine.headers(manifest, kind="live")
    answer = await unless_disconnected(request, engine.chat(question, headers=headers))
    text, truncated = _first_choice(answer)
    response.headers.update(adapter_headers(manifest.version))
    return QueryResponse(
        answer=text if body.answer_schema is None else _as_json(text, truncated=truncated),
        truncated=truncated,
        adapter=adapter_version(manifest),
    )


def _accepted(request: Request) -> str:
    form = preferred(request.headers.get("accept", ""), offers=(_JSON, _MARKDOWN))
    if form is None:
        raise NotAcceptable(f"a profile comes as {_JSON} or {_MARKDOWN}", field="accept")
    return form


def _profile_response(profile: Profile, form: str) -> Response:
    content = profile.to_bytes() if form == _JSON else render_markdown(profile).encode()
    headers = {**adapter_headers(profile.adapter.version), "vary": "accept"}
    return Response(content, media_type=form if form == _JSON else f"{form}; charset=utf-8", headers=headers)


def _question(body: QueryRequest, *, version_id: str) -> dict[str, Any]:
    request: dict[str, Any] = {
        "model": version_id,
        "messages": [{"role": "user", "content": body.question}],
        "max_tokens": body.max_tokens,
        "temperature": body.temperature,
    }
    if body.answer_schema is not None:
        schema = {"name": "answer", "schema": body.answer_schema}
        request["response_format"] = {"type": "json_schema", "json_schema": schema}
    return request


def _first_choice(answer: dict[str, Any]) -> tuple[str, bool]:
    try:
        choice = answer["choices"][0]
        return choice["message"]["content"] or "", choice.get("finish_reason") == "length"
    except (KeyError, IndexError, TypeError) as exc:
        raise EngineAnswerUnusable("the engine's answer has no message", field="choices") from exc


def _as_json(text: str, *, truncated: bool) -> Any:
    try:
        return json.loads(text)
    except ValueError as exc:
        if truncated:
            raise AnswerTruncated(field="max_tokens") from exc
        raise EngineAnswerUnusable("the engine's answer is not JSON though a schema was set") from exc
