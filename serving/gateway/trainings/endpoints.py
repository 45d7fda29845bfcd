"""Routes of trainings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Path, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from kit.errors import LorryError
from kit.names import Name
from kit.problems import refusal
from serving.errors import TrainingUnavailable
from serving.gateway.auth import Caller, needs
from serving.gateway.body_route import BodyRoute
from serving.gateway.endpoints import EVENTS, Limit, UserId, refusals
from serving.gateway.scopes import Scope as ApiScope
from serving.gateway.trainings.schemas import Training, TrainingBody, TrainingDetails, TrainingEvents, TrainingPage
from serving.gateway.trainings.service import TrainingService, Verb
from serving.gateway.upstream import frame, guarded, unless_disconnected

router = APIRouter(prefix="/v1", tags=["trainings"], route_class=BodyRoute)
Reader = Annotated[Caller, needs(ApiScope.TRAININGS_READ)]
Writer = Annotated[Caller, needs(ApiScope.TRAININGS_WRITE)]
State = Literal["queued", "starting", "running", "paused", "succeeded", "rejected", "failed", "canceled"]
_ID = "^j[0-9a-f]{32}$"
TrainingId = Annotated[str, Path(pattern=_ID, description="as the submission answered it")]
_EVENT_STREAM = "text/event-stream"
_EVENTS: dict[int | str, dict[str, Any]] = {200: {"model": TrainingEvents, "content": EVENTS}}


@router.post("/users/{user_id}/trainings", status_code=201, responses=refusals(404, 409))
async def submit_training(user_id: UserId, body: TrainingBody, request: Request, caller: Writer) -> Training:
    """Queue a training of a user's adapter. While the user has one, others are refused (409, `job_id` names it)."""
    return await _service(request).submit(caller.tenant, user_id, body)


@router.get("/trainings", responses=refusals())
async def list_trainings(
    request: Request,
    caller: Reader,
    user_id: Annotated[Name | None, Query(description="only this user's")] = None,
    state: Annotated[list[State] | None, Query(description="repeat it for several")] = None,
    cursor: Annotated[str | None, Query(pattern=_ID, description="`next_cursor` of the page before")] = None,
    limit: Limit = 100,
) -> TrainingPage:
    """List trainings of the tenant's users, the latest first."""
    states = [str(each) for each in state or []]
    return await _service(request).list(caller.tenant, user=user_id, states=states, before=cursor, limit=limit)


@router.get("/trainings/{training_id}", responses=refusals(404))
async def get_training(training_id: TrainingId, request: Request, caller: Reader) -> TrainingDetails:
    """Show one training, with its progress, when it will probably be done, and what its dataset is like."""
    return await _service(request).get(caller.tenant, training_id)


@router.post("/trainings/{training_id}/cancel", responses=refusals(404, 409))
async def cancel_training(training_id: TrainingId, request: Request, caller: Writer) -> Training:
    """End a training and remove what it has made. One that runs ends at its next step."""
    return await _steer(request, caller, training_id, "cancel")


@router.post("/trainings/{training_id}/pause", responses=refusals(404, 409))
async def pause_training(training_id: TrainingId, request: Request, caller: Writer) -> Training:
    """Have a training wait. One that runs stops at its next step and goes on from there when it is resumed."""
    return await _steer(request, caller, training_id, "pause")


@router.post("/trainings/{training_id}/resume", responses=refusals(404, 409))
async def resume_training(training_id: TrainingId, request: Request, caller: Writer) -> Training:
    """Have a paused training go on."""
    return await _steer(request, caller, training_id, "resume")


@router.post("/trainings/{training_id}/retry", responses=refusals(404, 409))
async def retry_training(training_id: TrainingId, request: Request, caller: Writer) -> Training:
    """Try an ended training again. A failed one goes on after what it has finished, others begin anew."""
    return await _steer(request, caller, training_id, "retry")


@router.get("/trainings/{training_id}/events", response_model=None, responses={**_EVENTS, **refusals(404)})
async def training_events(
    training_id: TrainingId,
    request: Request,
    caller: Reader,
    after: Annotated[int, Query(ge=0, lt=1 << 63, description="only events with larger ids")] = 0,
    last_event_id: Annotated[str | None, Header(description="of a stream that was cut", max_length=20)] = None,
    accept: Annotated[str, Header(description="`text/event-stream` streams until the training has ended")] = "",
) -> Response:
    """Return what has happened to a training; with `Accept: text/event-stream`, also what will, with its progress."""
    service = _service(request)
    if _EVENT_STREAM not in accept:
        found = await service.events(caller.tenant, training_id, after=after)
        return JSONResponse(found.model_dump(mode="json"))
    stack = AsyncExitStack()
    opened = service.stream(caller.tenant, training_id, after=after, last_event_id=last_event_id)
    lines = await unless_disconnected(request, stack.enter_async_context(opened))
    return _EventStream(guarded(_frames(lines), broken=_broken), stack=stack)


async def _steer(request: Request, caller: Caller, training_id: str, verb: Verb) -> Training:
    steered = await _service(request).steer(caller.tenant, training_id, verb)
    request.state.user = steered.user_id
    return steered


class _EventStream(StreamingResponse):
    """The training service's events, which are let go of with the client."""

    def __init__(self, content: AsyncIterator[bytes], *, stack: AsyncExitStack) -> None:
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(content, media_type=_EVENT_STREAM, headers=headers)
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._stack.aclose()


async def _frames(lines: AsyncIterator[str]) -> AsyncIterator[bytes]:
    """Yield the service's events; the last one, which holds the whole job, with what a caller is told of it."""
    event = ""
    async for line in lines:
        if line.startswith("event:"):
            event = line.removeprefix("event:").strip()
        if line.startswith("data:") and event == "end":
            yield f"data: {_told(line.removeprefix('data:'))}\n".encode()
        else:
            yield f"{line}\n".encode()


def _told(data: str) -> str:
    try:
        return Training.model_validate_json(data).model_dump_json()
    except ValueError as exc:
        raise TrainingUnavailable("the training service's answer is not one of this version") from exc


def _broken(error: LorryError) -> bytes:
    return b"\n" + frame(bytes(refusal(error).body), event=b"error")


def _service(request: Request) -> TrainingService:
    found: TrainingService = request.app.state.trainings
    return found
