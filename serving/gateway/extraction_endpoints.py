"""Batch extractions over HTTP: submitted, watched, steered, and their results read while they run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from pydantic import ValidationError

from kit.beside import beside, parse_json
from kit.errors import LorryError, problem_code
from kit.json_guard import objection
from serving.gateway.auth import Caller, needs
from serving.gateway.endpoints import refusals
from serving.gateway.extraction_schemas import (
    ExtractionList,
    ExtractionRequest,
    ExtractionView,
    ResultLine,
    inlined_schema,
)
from serving.gateway.scopes import Scope
from serving.jobs.batch import Submission
from serving.jobs.batches import Batches
from serving.jobs.errors import BatchRequestInvalid, MediaTypeUnsupported
from serving.jobs.results import Results, to_line
from serving.jobs.selection import Selection, read_lines
from serving.jobs.settings import BatchSettings
from serving.jobs.states import BatchState
from serving.jobs.vault import Vault

NDJSON = "application/x-ndjson"
_JSON = "application/json"
_FOLLOW_SECONDS = 1.0
Reader = Annotated[Caller, needs(Scope.EXTRACTIONS_READ)]
Writer = Annotated[Caller, needs(Scope.EXTRACTIONS_WRITE)]
BatchId = Annotated[str, Path(pattern="^b[0-9a-f]{32}$", description="as the submission answered it")]
_LINES = {"type": "string", "description": "a user_id a line, bare or as an object's `user_id`"}
_SUBMISSION = {
    "required": True,
    "content": {_JSON: {"schema": inlined_schema(ExtractionRequest)}, NDJSON: {"schema": _LINES}},
}


class NdjsonResponse(StreamingResponse):
    """Lines of JSON, sent as they come."""

    media_type = NDJSON


def extraction_router(settings: BatchSettings) -> APIRouter:
    """Return the routes; while the app runs, they reach its database and registry, and the object store if asked to."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        vault = Vault(settings, app.state.registry)
        app.state.batches = Batches(app.state.database, settings)
        app.state.batch_results = Results(app.state.database, vault)
        try:
            yield
        finally:
            vault.close()

    router = APIRouter(
        prefix="/v1/extractions",
        tags=["extractions"],
        lifespan=lifespan,
        responses=refusals(413, 422, 503),
    )
    router.add_api_route(
        "",
        submit,
        methods=["POST"],
        status_code=202,
        response_model=ExtractionView,
        responses=refusals(409, 415, 429),
        openapi_extra={"requestBody": _SUBMISSION},
    )
    router.add_api_route("", list_batches, methods=["GET"], response_model=ExtractionList)
    one = "/{extraction_id}"
    router.add_api_route(one, show, methods=["GET"], response_model=ExtractionView, responses=refusals(404))
    for verb in (pause, resume, cancel):
        path = f"{one}/{verb.__name__}"
        router.add_api_route(path, verb, methods=["POST"], response_model=ExtractionView, responses=refusals(404, 409))
    line: dict[int | str, dict[str, Any]] = {200: {"model": ResultLine, "description": "one `ResultLine` a line"}}
    router.add_api_route(
        f"{one}/results",
        results,
        methods=["GET"],
        response_class=NdjsonResponse,
        responses={**line, **refusals(404)},
    )
    return router


async def submit(request: Request, response: Response, caller: Writer) -> ExtractionView:
    """Queue a batch: JSON, or the users as lines (`application/x-ndjson`) with the other fields in the query."""
    body = await request.body()
    submission = await beside(len(body), _read_submission, request, body, tenant=caller.tenant)
    batches: Batches = request.app.state.batches
    batch = await batches.submit(submission)
    response.headers["location"] = f"/v1/extractions/{batch.id}"
    return ExtractionView.of(batch)


async def list_batches(
    request: Request,
    caller: Reader,
    state: Annotated[list[BatchState] | None, Query(max_length=6, description="only in one of these states")] = None,
    before: Annotated[str | None, Query(pattern="^b[0-9a-f]{32}$", description="last id of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> ExtractionList:
    """List the tenant's batches, the latest first."""
    batches: Batches = request.app.state.batches
    found = await batches.list(tenant=caller.tenant, states=state or (), before=before, limit=limit)
    next_before = found[-1].id if len(found) == limit else None
    return ExtractionList(extractions=[ExtractionView.of(batch) for batch in found], next_before=next_before)


async def show(extraction_id: BatchId, request: Request, caller: Reader) -> ExtractionView:
    """Return one batch: how far it is, how long it will take, who failed and why, by number."""
    batches: Batches = request.app.state.batches
    return ExtractionView.of(await batches.get(extraction_id, tenant=caller.tenant))


async def pause(extraction_id: BatchId, request: Request, caller: Writer) -> ExtractionView:
    """Have no more users taken in hand; those who are come to their end."""
    batches: Batches = request.app.state.batches
    return ExtractionView.of(await batches.pause(extraction_id, tenant=caller.tenant))


async def resume(extraction_id: BatchId, request: Request, caller: Writer) -> ExtractionView:
    """Have a paused batch go on."""
    batches: Batches = request.app.state.batches
    return ExtractionView.of(await batches.resume(extraction_id, tenant=caller.tenant))


async def cancel(extraction_id: BatchId, request: Request, caller: Writer) -> ExtractionView:
    """End a batch now; what was delivered stays."""
    batches: Batches = request.app.state.batches
    return ExtractionView.of(await batches.cancel(extraction_id, tenant=caller.tenant))


async def results(
    extraction_id: BatchId,
    request: Request,
    caller: Reader,
    after: Annotated[int, Query(ge=0, le=2**31 - 1, description="`sequence` of the last line that you have")] = 0,
    follow: Annotated[bool, Query(description="go on until the batch has ended")] = False,
) -> NdjsonResponse:
    """Stream results as lines of JSON, in the order in which users ended.

    A stream that breaks off is continued with `after`. One that cannot go on ends with a line that has only an `error`.
    A key without the scope `profiles:read` gets lines without profiles, which name it in `withheld`.
    """
    found: Results = request.app.state.batch_results
    lines = found.stream(
        extraction_id, tenant=caller.tenant, after=after, follow_seconds=_FOLLOW_SECONDS if follow else None
    )
    await found.require(extraction_id, tenant=caller.tenant)  # what is refused is refused before the stream begins
    withheld = None if caller.may(Scope.PROFILES_READ) else Scope.PROFILES_READ
    return NdjsonResponse(_body(lines, withheld=withheld), headers={"cache-control": "no-cache"})


async def _body(lines: AsyncIterator[dict[str, Any]], *, withheld: Scope | None) -> AsyncIterator[str]:
    try:
        async for line in lines:
            yield to_line(line if withheld is None else {**line, "profile": None, "withheld": withheld})
    except LorryError as exc:
        yield to_line({"error": {"code": problem_code(type(exc)), "message": exc.message}})


def _read_submission(request: Request, body: bytes, *, tenant: str) -> Submission:
    media_type = request.headers.get("content-type", _JSON).partition(";")[0].strip().lower()
    if media_type == NDJSON:
        wanted = _checked(_options(request))
        users: list[str] | None = list(read_lines(_text(body).splitlines()))
    elif media_type == _JSON:
        wanted = _checked(_json(body))
        users = wanted.users
    else:
        raise MediaTypeUnsupported(f"send {_JSON} or {NDJSON}", field="content-type")
    selection = Selection.of(
        users=users, everybody=wanted.everybody, only=wanted.only, max_age_days=wanted.max_age_days
    )
    return Submission(tenant=tenant, selection=selection, webhook_url=wanted.webhook.url if wanted.webhook else None)


def _options(request: Request) -> dict[str, Any]:
    """Return what the query says beside lines, as the JSON form has it."""
    given: dict[str, Any] = dict(request.query_params)
    if "webhook" in given:
        given["webhook"] = {"url": given["webhook"]}
    if refused := sorted({"users", "everybody"} & set(given)):
        raise BatchRequestInvalid("the users are in the lines", field=refused[0])
    return given


def _checked(given: Any) -> ExtractionRequest:
    try:
        return ExtractionRequest.model_validate(given)
    except ValidationError as exc:
        raise RequestValidationError([{**error, "loc": ("body", *error["loc"])} for error in exc.errors()]) from exc


def _json(body: bytes) -> Any:
    if (objected := objection(body)) is not None:
        field, reason = objected
        raise BatchRequestInvalid(f"{field}: {reason}", field=field)
    try:
        return parse_json(body)
    except (ValueError, RecursionError) as exc:
        raise BatchRequestInvalid("the body is not JSON", field="body") from exc


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as exc:
        raise BatchRequestInvalid("the lines are not UTF-8", field="body") from exc
