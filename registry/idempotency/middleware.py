"""`Idempotency-Key` on POST: who lost the answer asks again, and is told what was answered, not done to twice.

A success is kept for a day and answered again to the same request under the same key; the same key with another
request is refused (422), as is one whose first request still runs (409). A refusal changed nothing, so it is not kept:
the next attempt runs. Neither is an answer that is marked `no-store`, because it holds a key or a signed URL; the
routes that give such answers can be repeated anyway. Every route can: this is for callers who want to see the first
answer.

What is kept is found by whom it is about: the owner whom the path names. A test asks every route whose answers are kept
whether it names one there, or is about nobody.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kit.canonical import sha256_json
from kit.database import Database
from kit.errors import InvalidName, LorryError
from kit.problems import refusal
from registry.access import identify
from registry.errors import IdempotencyKeyReused, InvalidReference, RequestRunning
from registry.idempotency.repository import IdempotencyRepository, Known
from registry.manifest import Owner
from registry.services import kept

HEADER: Final = "idempotency-key"
REPLAYED: Final = "idempotency-replayed"
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_OWNER = re.compile(r"/v1/tenants/(?P<tenant>[^/]+)/users/(?P<user>[^/]+)(?:/|$)")
_MAX_KEPT_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class _Request:
    """One request with a key; `scope` is whose key it is, `digest` what it asks for, `owner` whom it is about."""

    scope: str
    key: str
    digest: str
    owner: Owner | None


@dataclass(kw_only=True)
class _Answer:
    """What the application says, as it says it."""

    status: int = 0
    headers: Headers = field(default_factory=Headers)
    body: bytearray = field(default_factory=bytearray)

    @property
    def worth_keeping(self) -> bool:
        """Whether it may be answered again."""
        secret = "no-store" in self.headers.get("cache-control", "")
        return 200 <= self.status < 300 and not secret and len(self.body) <= _MAX_KEPT_BYTES


class IdempotentRequests:
    """Answers a repeated POST from memory; must stand inside `BodyLimit`, which bounds what is read."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, unless it was answered before."""
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        if scope["type"] != "http" or scope["method"] != "POST" or HEADER not in headers:
            await self._app(scope, receive, send)
            return
        caller = identify(scope["app"].state.settings, headers.get("authorization"))
        if caller is None:  # the application says 401; nobody is answered from memory without a token
            await self._app(scope, receive, send)
            return
        messages, body = await _read(receive)
        database = kept(scope["app"], Database)
        try:
            request = _describe(scope, headers[HEADER], caller=caller, body=body)
            async with database.transaction() as session:
                known = await IdempotencyRepository(session).claim(
                    request.scope, request.key, digest=request.digest, owner=request.owner
                )
            if known is not None:
                await _again(known, request)(scope, receive, send)
                return
        except LorryError as exc:
            await refusal(exc)(scope, receive, send)
            return

        async def replay() -> Message:
            return messages.pop(0) if messages else await receive()

        await self._run(database, request, scope, replay, send)

    async def _run(self, database: Database, request: _Request, scope: Scope, receive: Receive, send: Send) -> None:
        answer = _Answer()

        async def watch(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer.status, answer.headers = message["status"], Headers(raw=message["headers"])
            elif message["type"] == "http.response.body" and len(answer.body) <= _MAX_KEPT_BYTES:
                answer.body += message.get("body", b"")
            if not message.get("more_body", False) and message["type"] == "http.response.body":
                await _settle(database, request, answer)  # before the caller can ask again
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except BaseException:
            await asyncio.shield(_settle(database, request, _Answer()))
            raise


async def _settle(database: Database, request: _Request, answer: _Answer) -> None:
    """Keep or forget; a database that is gone by now leaves the key taken until it counts as abandoned."""
    try:
        async with database.transaction() as session:
            repository = IdempotencyRepository(session)
            if answer.worth_keeping:
                body = bytes(answer.body)
                await repository.keep(
                    request.scope, request.key, digest=request.digest, status=answer.status, answer=body
                )
            else:
                await repository.release(request.scope, request.key, digest=request.digest)
    except LorryError:
        return


def _describe(scope: Scope, key: str, *, caller: str, body: bytes) -> _Request:
    if _KEY.fullmatch(key) is None:
        raise InvalidReference(f"{HEADER} must be 1 to 255 visible ASCII characters", field=HEADER)
    query = scope.get("query_string", b"").decode("latin-1")
    asked = [caller, scope["path"], query, body.decode("latin-1")]
    return _Request(scope=caller, key=key, digest=sha256_json(asked), owner=owner_of(scope["path"]))


def owner_of(path: str) -> Owner | None:
    """Return whom a request is about, as its path says; None = nobody, or nobody who could be."""
    named = _OWNER.match(path)
    try:
        return None if named is None else Owner.named(tenant=named["tenant"], user=named["user"])
    except InvalidName:
        return None


def _again(known: Known, request: _Request) -> Response:
    if known.digest != request.digest:
        raise IdempotencyKeyReused(field=HEADER)
    if known.status is None:
        raise RequestRunning(field=HEADER)
    response = Response(known.answer, status_code=known.status, media_type="application/json")
    MutableHeaders(raw=response.raw_headers)[REPLAYED] = "true"
    return response


async def _read(receive: Receive) -> tuple[list[Message], bytes]:
    messages: list[Message] = []
    while True:
        message = await receive()
        messages.append(message)
        if not message.get("more_body", False):
            return messages, b"".join(each.get("body", b"") for each in messages)
