"""The calls of the public API, as values: what is sent, and how the answer is read. Both clients send them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel

from lorry.client.errors import refusal
from lorry.client.results import (
    Answer,
    BulkResult,
    ChatAnswer,
    Profile,
    RefusedLine,
    Training,
    Transcript,
    TranscriptHead,
    Usage,
)

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
Fallback = Literal["profile"]
_BULK_BYTES = 8 << 20
_WITHHELD = 204
_VERSION = "x-lorry-adapter-version"


@dataclass(frozen=True, kw_only=True)
class Call(Generic[T]):
    """One call; `read` makes its result of a successful answer."""

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    json: Any = None
    content: bytes | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Page(Generic[T]):
    """Some of a listing, and where it goes on; None = it does not."""

    items: list[T]
    cursor: str | None


def query(
    user: str,
    question: str,
    *,
    schema: Mapping[str, Any] | None,
    max_tokens: int,
    temperature: float,
    fallback: Fallback | None,
    stream: bool = False,
) -> Call[Answer]:
    """Ask a user's adapter."""
    body = {"question": question, "max_tokens": max_tokens, "temperature": temperature, "stream": stream}
    body |= _given(schema=schema, fallback=fallback)
    return Call(method="POST", path=f"{_user(user)}/query", json=body, read=_model(Answer))


def chat(
    user: str, messages: Sequence[Mapping[str, Any]], *, fallback: Fallback | None, options: Mapping[str, Any]
) -> Call[ChatAnswer]:
    """Complete a chat with a user's adapter; `options` are OpenAI's."""
    body = {**options, "model": f"users/{user}", "messages": list(messages)} | _given(fallback=fallback)

    def read(response: httpx.Response) -> ChatAnswer:
        completion = response.json()
        text = completion["choices"][0]["message"].get("content") or ""
        return ChatAnswer(text=text, adapter_version=_version(response), completion=completion)

    return Call(method="POST", path="/v1/chat/completions", json=body, read=read)


def get_profile(user: str) -> Call[Profile]:
    """Read the newest profile."""
    return Call(method="GET", path=f"{_user(user)}/profile", read=_profile)


def get_profile_page(user: str) -> Call[str]:
    """Read the newest profile as Markdown."""
    headers = {"accept": "text/markdown"}
    return Call(method="GET", path=f"{_user(user)}/profile", headers=headers, read=lambda response: response.text)


def extract_profile(user: str) -> Call[Profile]:
    """Extract a profile now."""
    return Call(method="POST", path=f"{_user(user)}/profile", read=_profile)


def put_transcript(user: str, transcript: Transcript) -> Call[str]:
    """Keep a transcript; its id is returned."""
    path = f"{_user(user)}/transcripts/{quote(transcript.name, safe='')}"
    return Call(method="PUT", path=path, json=_transcript(transcript), read=lambda response: str(response.json()["id"]))


def put_transcripts(user: str, transcripts: Iterable[Transcript]) -> Iterator[Call[BulkResult]]:
    """Yield calls that keep many transcripts, each of a bounded size; refused lines are numbered over all of them."""
    lines: list[bytes] = []
    size = first = number = 0
    for number, transcript in enumerate(transcripts, start=1):
        line = json.dumps({"id": transcript.name, **_transcript(transcript)}, ensure_ascii=False).encode() + b"\n"
        if lines and size + len(line) > _BULK_BYTES:
            yield _bulk(user, lines, first=first)
            lines, size, first = [], 0, number - 1
        lines.append(line)
        size += len(line)
    if lines:
        yield _bulk(user, lines, first=first)


def get_transcript(user: str, name: str) -> Call[Transcript]:
    """Read a transcript by its name or id."""
    return Call(method="GET", path=f"{_user(user)}/transcripts/{quote(name, safe='')}", read=_model(Transcript))


def delete_transcript(user: str, name: str) -> Call[None]:
    """Delete a transcript by its name or id."""
    path = f"{_user(user)}/transcripts/{quote(name, safe='')}"
    return Call(method="DELETE", path=path, read=lambda response: None)


def list_transcripts(user: str, *, cursor: str | None) -> Call[Page[TranscriptHead]]:
    """Read one page of a user's transcripts."""
    params = _given(cursor=cursor, limit=1000)
    return Call(
        method="GET",
        path=f"{_user(user)}/transcripts",
        params=params,
        read=_page(TranscriptHead, "transcripts"),
    )


def submit_training(
    user: str, *, adapter: str | None, settings: Mapping[str, float] | None, why: str
) -> Call[Training]:
    """Queue a training."""
    body = {"why": why} | _given(adapter=adapter, settings=None if settings is None else dict(settings))
    return Call(method="POST", path=f"{_user(user)}/trainings", json=body, read=_model(Training))


def list_trainings(*, user: str | None, states: Sequence[str], cursor: str | None) -> Call[Page[Training]]:
    """Read one page of the tenant's trainings."""
    params = _given(user_id=user, cursor=cursor, limit=1000) | ({"state": list(states)} if states else {})
    return Call(method="GET", path="/v1/trainings", params=params, read=_page(Training, "trainings"))


def get_training(training_id: str) -> Call[Training]:
    """Read one training."""
    return Call(method="GET", path=f"/v1/trainings/{quote(training_id, safe='')}", read=_model(Training))


def cancel_training(training_id: str) -> Call[Training]:
    """End a training."""
    return Call(method="POST", path=f"/v1/trainings/{quote(training_id, safe='')}/cancel", read=_model(Training))


def training_events(training_id: str) -> Call[None]:
    """Open the stream of a training's events."""
    path = f"/v1/trainings/{quote(training_id, safe='')}/events"
    return Call(method="GET", path=path, headers={"accept": "text/event-stream"}, read=lambda response: None)


def usage(
    *, by: Literal["user", "day"], since: str | None, until: str | None, user: str | None, cursor: str | None
) -> Call[Page[Usage]]:
    """Read one page of what the tenant used."""
    params = _given(by=by, since=since, until=until, user_id=user, cursor=cursor, limit=1000)
    return Call(method="GET", path="/v1/usage", params=params, read=_page(Usage, "usage"))


def merge(results: Sequence[BulkResult]) -> BulkResult:
    """Return several results of one bulk upload as one."""
    return BulkResult(
        created=sum(each.created for each in results),
        known=sum(each.known for each in results),
        refused=[line for each in results for line in each.refused],
        refused_count=sum(each.refused_count for each in results),
    )


def _bulk(user: str, lines: list[bytes], *, first: int) -> Call[BulkResult]:
    def read(response: httpx.Response) -> BulkResult:
        result = BulkResult.model_validate_json(response.content)
        moved = [RefusedLine(line=line.line + first, field=line.field, reason=line.reason) for line in result.refused]
        return result.model_copy(update={"refused": moved})

    headers = {"content-type": "application/x-ndjson"}
    return Call(method="POST", path=f"{_user(user)}/transcripts", content=b"".join(lines), headers=headers, read=read)


def _transcript(transcript: Transcript) -> dict[str, Any]:
    turns = [turn.model_dump(mode="json", exclude_none=True) for turn in transcript.turns]
    return {"title": transcript.title, "turns": turns}


def _profile(response: httpx.Response) -> Profile:
    if response.status_code == _WITHHELD:
        detail = "the profile was extracted and kept; to be shown it, the API key needs the scope 'profiles:read'"
        raise refusal(403, {"type": "urn:lorry:problem:scope-missing", "detail": detail, "scope": "profiles:read"})
    return Profile(document=response.json(), adapter_version=_version(response), etag=response.headers.get("etag", ""))


def _version(response: httpx.Response) -> int | None:
    told = response.headers.get(_VERSION, "")
    return int(told) if told.isdecimal() else None


def _model(model: type[M]) -> Callable[[httpx.Response], M]:
    return lambda response: model.model_validate_json(response.content)


def _page(model: type[M], name: str) -> Callable[[httpx.Response], Page[M]]:
    def read(response: httpx.Response) -> Page[M]:
        body = response.json()
        return Page(items=[model.model_validate(each) for each in body[name]], cursor=body["next_cursor"])

    return read


def _user(user: str) -> str:
    return f"/v1/users/{quote(user, safe='')}"


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
