"""A question to a user's adapter."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from fastapi.responses import JSONResponse, Response
from pydantic import TypeAdapter

from kit.errors import LorryError
from kit.problems import refusal
from registry.manifest import AdapterRef, Owner
from serving.errors import AnswerTruncated, EngineAnswerUnusable
from serving.gateway.answerers import Answerer, Answerers, Fallback, allowed_fallback
from serving.gateway.auth import Caller, needs
from serving.gateway.body_route import BodyRoute
from serving.gateway.endpoints import EVENTS, UserId, refusals
from serving.gateway.schemas import QueryRequest, QueryResponse
from serving.gateway.scopes import Scope
from serving.gateway.upstream import EngineEvents, Upstream, frame, guarded, parse_event, unless_disconnected

router = APIRouter(prefix="/v1/users/{user_id}", tags=["query"], route_class=BodyRoute)
_ANY: TypeAdapter[Any] = TypeAdapter(Any)
_FORMS: dict[int | str, dict[str, Any]] = {200: {"model": QueryResponse, "content": EVENTS}}


@router.post("/query", response_model=None, responses={**_FORMS, **refusals(400, 404, 409, 502)})
async def query(
    user_id: UserId,
    body: QueryRequest,
    request: Request,
    caller: Annotated[Caller, needs(Scope.QUERY)],
    x_lorry_fallback: Annotated[Fallback | None, Header(description="as the field `fallback`")] = None,
) -> Response:
    """Ask the user's live adapter one question; with a `schema`, the answer is JSON of that shape."""
    answerers: Answerers = request.app.state.answerers
    upstream: Upstream = request.app.state.upstream
    ref = AdapterRef(owner=Owner(tenant=caller.tenant, user=user_id))
    answerer = await answerers.choose(ref, fallback=allowed_fallback(caller, x_lorry_fallback or body.fallback))
    payload = body.to_engine(answerer.model, answerer.prepare([{"role": "user", "content": body.question}]))
    if body.stream:

        def render(events: EngineEvents) -> AsyncIterator[bytes]:
            return guarded(_events(events, answerer, body), broken=_broken)

        return await unless_disconnected(request, upstream.stream(payload, answerer, render=render))
    answer = await unless_disconnected(request, upstream.answer(payload, answerer))
    text, truncated = _first_choice(answer, "message")
    response = _response(text, body, answerer, truncated=truncated)
    return JSONResponse(response.model_dump(mode="json"), headers=answerer.headers)


async def _events(events: EngineEvents, answerer: Answerer, body: QueryRequest) -> AsyncIterator[bytes]:
    pieces, is_cut = [], False
    async for data in events:
        event = parse_event(data)
        if event.get("choices"):
            text, is_last_cut = _first_choice(event, "delta")
            is_cut = is_cut or is_last_cut
            if text:
                pieces.append(text)
                yield frame(json.dumps({"text": text}, ensure_ascii=False).encode(), event=b"delta")
    done = _response("".join(pieces), body, answerer, truncated=is_cut)
    yield frame(done.model_dump_json().encode(), event=b"done")


def _broken(error: LorryError) -> bytes:
    return frame(bytes(refusal(error).body), event=b"error")


def _response(text: str, body: QueryRequest, answerer: Answerer, *, truncated: bool) -> QueryResponse:
    return QueryResponse(
        answer=text if body.answer_schema is None else _as_json(text, truncated=truncated),
        truncated=truncated,
        adapter=answerer.adapter,
        fallback=answerer.fallback,
    )


def _first_choice(answer: dict[str, Any], part: str) -> tuple[str, bool]:
    """Return the text in the first choice's `part`, and whether it was cut there."""
    try:
        choice = answer["choices"][0]
        return choice[part].get("content") or "", choice.get("finish_reason") == "length"
    except (KeyError, IndexError, TypeError, AttributeError) as exc:
        raise EngineAnswerUnusable("the engine's answer has no message", field="choices") from exc


def _as_json(text: str, *, truncated: bool) -> Any:
    """Return the value of an answer; what cannot be written as JSON again is refused as what is none.

    A grammar lets numbers through that no float holds, halves of surrogate pairs, and lists in lists without an end.
    """
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        _ANY.dump_python(value, mode="json")  # which nests less deeply
    except (ValueError, RecursionError) as exc:
        if truncated:
            raise AnswerTruncated(field="max_tokens") from exc
        raise EngineAnswerUnusable("the engine's answer is no usable JSON though a schema was set") from exc
    return value
