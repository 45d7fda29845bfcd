"""Calls about a user's transcripts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import httpx

from lorry.client.calls.call import PAGE_ROWS, Call, Page, given, model, page, segment, user_path
from lorry.client.results import BulkResult, RefusedLine, Transcript, TranscriptHead

_BULK_BYTES = 8 << 20
_NDJSON = "application/x-ndjson"


def put(user: str, transcript: Transcript) -> Call[str]:
    """Keep a transcript; its id is returned."""
    path = _one(user, transcript.name)
    return Call(method="PUT", path=path, json=_body(transcript), read=lambda response: str(response.json()["id"]))


def put_many(user: str, transcripts: Iterable[Transcript]) -> Iterator[Call[BulkResult]]:
    """Yield calls that keep many transcripts, each of a bounded size; refused lines are numbered over all of them."""
    lines: list[bytes] = []
    size = first = number = part = 0
    for number, transcript in enumerate(transcripts, start=1):
        line = json.dumps({"id": transcript.name, **_body(transcript)}, ensure_ascii=False).encode() + b"\n"
        if lines and size + len(line) > _BULK_BYTES:
            yield _bulk(user, lines, first=first, part=part)
            lines, size, first, part = [], 0, number - 1, part + 1
        lines.append(line)
        size += len(line)
    if lines:
        yield _bulk(user, lines, first=first, part=part)


def get(user: str, name: str) -> Call[Transcript]:
    """Read a transcript by its name or id."""
    return Call(method="GET", path=_one(user, name), read=model(Transcript))


def delete(user: str, name: str) -> Call[None]:
    """Delete a transcript by its name or id."""
    return Call(method="DELETE", path=_one(user, name), read=lambda response: None)


def list_page(user: str, *, cursor: str | None) -> Call[Page[TranscriptHead]]:
    """Read one page of a user's transcripts."""
    params = given(cursor=cursor, limit=PAGE_ROWS)
    return Call(method="GET", path=_path(user), params=params, read=page(TranscriptHead, "transcripts"))


def whole_page(user: str, *, cursor: str | None) -> Call[Page[Transcript]]:
    """Read one page of a user's transcripts with their turns."""
    params = given(cursor=cursor, limit=PAGE_ROWS, turns=True)
    return Call(method="GET", path=_path(user), params=params, read=page(Transcript, "transcripts"))


def delete_all(user: str) -> Call[int]:
    """Delete all of a user's transcripts; how many there were is returned."""
    return Call(method="DELETE", path=_path(user), read=lambda response: int(response.json()["deleted"]))


def merge(results: Sequence[BulkResult]) -> BulkResult:
    """Return several results of one bulk upload as one."""
    return BulkResult(
        created=sum(each.created for each in results),
        known=sum(each.known for each in results),
        refused=[line for each in results for line in each.refused],
        refused_count=sum(each.refused_count for each in results),
    )


def _bulk(user: str, lines: list[bytes], *, first: int, part: int) -> Call[BulkResult]:
    def read(response: httpx.Response) -> BulkResult:
        result = BulkResult.model_validate_json(response.content)
        moved = [RefusedLine(line=line.line + first, field=line.field, reason=line.reason) for line in result.refused]
        return result.model_copy(update={"refused": moved})

    headers = {"content-type": _NDJSON}
    return Call(method="POST", path=_path(user), content=b"".join(lines), headers=headers, part=part, read=read)


def _body(transcript: Transcript) -> dict[str, Any]:
    turns = [turn.model_dump(mode="json", exclude_none=True) for turn in transcript.turns]
    return {"title": transcript.title, "turns": turns}


def _path(user: str) -> str:
    return f"{user_path(user)}/transcripts"


def _one(user: str, name: str) -> str:
    return f"{_path(user)}/{segment(name, field='transcript_id')}"
