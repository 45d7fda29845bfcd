"""Routes of a user's transcripts."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from kit.beside import beside
from kit.names import Name
from serving.errors import LinesInvalid
from serving.gateway.auth import Caller, needs
from serving.gateway.body_route import BodyRoute
from serving.gateway.cursor import decode_cursor, encode_cursor
from serving.gateway.endpoints import Cursor, Limit, UserId, refusals
from serving.gateway.scopes import Scope
from serving.gateway.transcripts.lines import read_lines
from serving.gateway.transcripts.schemas import (
    BulkResult,
    Deleted,
    RefusedLine,
    TranscriptBody,
    TranscriptPage,
    TranscriptPut,
    TranscriptView,
    WholeTranscriptPage,
)
from serving.gateway.transcripts.shelf import Shelf
from transcripts.transcript import Transcript

router = APIRouter(prefix="/v1/users/{user_id}/transcripts", tags=["transcripts"], route_class=BodyRoute)
TranscriptId = Annotated[Name, Path(description="the caller's own name of the transcript, or its id")]
Reader = Annotated[Caller, needs(Scope.TRANSCRIPTS_READ)]
Writer = Annotated[Caller, needs(Scope.TRANSCRIPTS_WRITE)]
BULK_PATH = "/v1/users/{user_id}/transcripts"
_NDJSON = "application/x-ndjson"
_LINES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "a JSON object a line: `id`, `turns` and, if you like, `title`, as in `PUT`",
        "content": {_NDJSON: {"schema": {"type": "string"}}},
    }
}
_MOST_REPORTED = 1000
_MOST_CHARACTERS = 4_000_000


@router.put("/{transcript_id}", responses=refusals())
async def put_transcript(
    user_id: UserId, transcript_id: TranscriptId, body: TranscriptBody, request: Request, caller: Writer
) -> TranscriptPut:
    """Keep a conversation under a name of the caller's own, in the place of what had that name before."""
    transcript = await beside(len(await request.body()), body.to_transcript)
    return await _shelf(request).put(caller.tenant, user_id, transcript_id, transcript)


@router.get("/{transcript_id}", responses=refusals(404), response_model=TranscriptView)
async def get_transcript(user_id: UserId, transcript_id: TranscriptId, request: Request, caller: Reader) -> Response:
    """Return one transcript with its turns."""
    transcript, names = await _shelf(request).get(caller.tenant, user_id, transcript_id)
    size_bytes = sum(len(turn.text) for turn in transcript.turns)
    return Response(await beside(size_bytes, _render, transcript, names), media_type="application/json")


@router.delete("/{transcript_id}", status_code=204, responses=refusals(404))
async def delete_transcript(user_id: UserId, transcript_id: TranscriptId, request: Request, caller: Writer) -> Response:
    """Delete one transcript. Adapters that were trained on it stay as they are until the next training."""
    await _shelf(request).delete(caller.tenant, user_id, transcript_id)
    return Response(status_code=204)


@router.get("", responses=refusals(), response_model=TranscriptPage | WholeTranscriptPage)
async def list_transcripts(
    user_id: UserId,
    request: Request,
    caller: Reader,
    cursor: Cursor = None,
    limit: Limit = 100,
    turns: Annotated[bool, Query(description="with their turns, as many as fit into 4 million characters")] = False,
) -> Response:
    """List a user's transcripts by id, without their turns unless these are asked for."""
    after = None if cursor is None else decode_cursor(cursor, parts=1)[0]
    shelf = _shelf(request)
    if turns:
        whole, last = await shelf.whole_page(
            caller.tenant, user_id, after=after, limit=limit, most_characters=_MOST_CHARACTERS
        )
        size = sum(len(turn.text) for transcript, _ in whole for turn in transcript.turns)
        return Response(await beside(size, _render_all, whole, _cursor(last)), media_type="application/json")
    found, last = await shelf.page(caller.tenant, user_id, after=after, limit=limit)
    page = TranscriptPage(transcripts=found, next_cursor=_cursor(last))
    return Response(page.model_dump_json(), media_type="application/json")


@router.delete("", responses=refusals())
async def delete_transcripts(user_id: UserId, request: Request, caller: Writer) -> Deleted:
    """Delete all of a user's transcripts. Their adapters stay as they are; to forget somebody, erase them."""
    return Deleted(deleted=await _shelf(request).delete_all(caller.tenant, user_id))


@router.post("", openapi_extra=_LINES, responses=refusals())
async def put_transcripts(user_id: UserId, request: Request, caller: Writer) -> BulkResult:
    """Keep many conversations at once: NDJSON, one a line. Lines that are refused are named; the others are kept."""
    body = await request.body()
    taken, refused = await beside(len(body), _judge, body)
    if not taken:
        first = refused[0] if refused else RefusedLine(line=1, field="body", reason="is empty")
        raise LinesInvalid(f"line {first.line}: {first.field} {first.reason}", field="body", refused_count=len(refused))
    created = await _shelf(request).put_all(caller.tenant, user_id, taken)
    return BulkResult(
        created=created,
        known=len(taken) - created,
        refused=refused[:_MOST_REPORTED],
        refused_count=len(refused),
    )


def _render(transcript: Transcript, names: list[str]) -> str:
    return TranscriptView.of(transcript, names=names).model_dump_json()


def _render_all(whole: list[tuple[Transcript, list[str]]], next_cursor: str | None) -> str:
    views = [TranscriptView.of(transcript, names=names) for transcript, names in whole]
    return WholeTranscriptPage(transcripts=views, next_cursor=next_cursor).model_dump_json()


def _cursor(last: str | None) -> str | None:
    return None if last is None else encode_cursor([last])


def _judge(body: bytes) -> tuple[dict[str, Transcript], list[RefusedLine]]:
    """Return what can be kept, by name, and what cannot; of two lines with one name the first is kept."""
    taken: dict[str, Transcript] = {}
    refused = []
    for number, read in read_lines(body):
        if isinstance(read, RefusedLine):
            refused.append(read)
        elif read.id in taken:
            refused.append(RefusedLine(line=number, field="id", reason="has come in an earlier line"))
        else:
            taken[read.id] = read.to_transcript()
    return taken, refused


def _shelf(request: Request) -> Shelf:
    found: Shelf = request.app.state.shelf
    return found
