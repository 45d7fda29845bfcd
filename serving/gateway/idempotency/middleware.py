"""`Idempotency-Key`: a request that changes something is done once, however often its answer is lost.

A success is answered again, word for word, to the same request under the same key; another request under that key is
refused, as is one whose first request still runs. Refusals are not kept: they changed nothing, and the next attempt
runs. Neither are streams and very long answers. What is kept is content, so it is kept as long as a retry may take and
no longer, and it can be found by its user.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kit.beside import beside
from kit.canonical import sha256_bytes
from kit.database import Database
from kit.errors import BeingErased, LorryError
from serving.errors import HeaderInvalid, IdempotencyConflict, RequestStillRunning
from serving.gateway.auth import Caller
from serving.gateway.chores import Chore
from serving.gateway.erasing import Sign
from serving.gateway.idempotency.repository import Claim, Kept, Known, RequestRepository
from serving.gateway.passage.identity import user_of
from serving.gateway.passage.refusing import refuse
from serving.gateway.scopes import EVERYTHING
from transcripts.store import TranscriptStore

HEADER: Final = "idempotency-key"
REPLAYED: Final = "idempotency-replayed"
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_UNSAFE = frozenset({"POST", "PUT", "DELETE", "PATCH"})
_MAX_KEPT_BYTES = 1 << 20
_KEPT_HEADERS = ("content-type", "etag", "location")
_OWN_HEADERS = "x-lorry-"
_SWEEP_SECONDS = 60.0
_STREAM = "text/event-stream"


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """Where answers are kept, and how long; `running` is longer than any request runs."""

    database: Database
    answers: timedelta
    running: timedelta

    def sweeping(self) -> Chore:
        """Return the chore that deletes what has expired."""
        return Chore(self._sweep, every_seconds=_SWEEP_SECONDS, last=self._sweep)

    async def _sweep(self) -> None:
        async with self.database.transaction() as session:
            await RequestRepository(session).delete_expired()


@dataclass(frozen=True, kw_only=True)
class About:
    """Whom an answer is about, None = nobody; and the transcripts that it quotes."""

    user: str | None = None
    quoted: frozenset[str] = frozenset()


@dataclass(kw_only=True)
class _Answer:
    """What the application says, as it says it."""

    status: int = 0
    headers: Headers = field(default_factory=Headers)
    body: bytearray = field(default_factory=bytearray)

    def hear(self, message: Message) -> None:
        """Take in one message."""
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], Headers(raw=message["headers"])
        elif message["type"] == "http.response.body" and len(self.body) <= _MAX_KEPT_BYTES:
            self.body += message.get("body", b"")

    def kept(self) -> Kept | None:
        """Return what may be answered again; None when it may not."""
        is_stream = self.headers.get("content-type", "").startswith(_STREAM)
        if not 200 <= self.status < 300 or is_stream or len(self.body) > _MAX_KEPT_BYTES:
            return None
        found = {name: value for name, value in self.headers.items() if _is_kept(name)}
        return Kept(status=self.status, headers=found, body=bytes(self.body))


class IdempotentRequests:
    """Answers repeated requests from the database; stands inside the entrance and what bounds bodies."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, unless it was answered before."""
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        caller: Caller | None = scope.get("state", {}).get("caller")
        if caller is None or scope["method"] not in _UNSAFE or HEADER not in headers:
            await self._app(scope, receive, send)
            return
        keeping: Keeping = scope["app"].state.keeping
        messages, body = await _read(receive)
        try:
            body_digest = await beside(len(body), sha256_bytes, body)
            claim = _claim(scope, headers[HEADER], caller=caller, body_digest=body_digest)
            async with keeping.database.transaction() as session:
                known = await RequestRepository(session).take(claim, lasts=keeping.running)
            if known is not None:
                if known.user is not None:
                    sign: Sign = scope["app"].state.sign
                    await sign.require_not_erasing(caller.tenant, known.user, reads_database=True)
                await _again(known, claim)(scope, receive, send)
                return
        except LorryError as exc:
            await refuse(exc, scope)(scope, receive, send)
            return

        async def replay() -> Message:
            return messages.pop(0) if messages else await receive()

        await self._run(keeping, claim, scope, replay, send)

    async def _run(self, keeping: Keeping, claim: Claim, scope: Scope, receive: Receive, send: Send) -> None:
        answer = _Answer()

        async def watch(message: Message) -> None:
            answer.hear(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                about = About(user=user_of(scope), quoted=scope.get("state", {}).get("quoted", frozenset()))
                await _settle(keeping, claim, answer.kept(), about=about)  # before the caller can ask again
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except BaseException:
            await asyncio.shield(_settle(keeping, claim, None, about=About()))
            raise


async def _settle(keeping: Keeping, claim: Claim, kept: Kept | None, *, about: About) -> None:
    """Keep or forget; a database that is gone by now leaves the key taken until it counts as abandoned."""
    try:
        if kept is not None:
            try:
                async with keeping.database.transaction() as session:
                    if await _is_still_there(session, claim.tenant, about):
                        await RequestRepository(session).keep(claim, kept, user=about.user, lasts=keeping.answers)
                        return
            except BeingErased:  # nothing is kept of them, nor that anything was asked
                pass
        async with keeping.database.transaction() as session:
            await RequestRepository(session).give_back(claim)
    except LorryError:
        return


async def _is_still_there(session: AsyncSession, tenant: str, about: About) -> bool:
    """Say whether what an answer quotes was not deleted while it was made; until the transaction ends, nothing is.

    Whoever deletes a transcript later forgets the answers that were kept.
    """
    if about.user is None or not about.quoted:
        return True
    store = TranscriptStore(session)
    await store.hold(tenant, about.user)
    return await store.has_all(tenant, about.user, about.quoted)


def _claim(scope: Scope, key: str, *, caller: Caller, body_digest: str) -> Claim:
    """Return what is claimed; another key of the tenant's is answered again only when it may do the same."""
    if _KEY.fullmatch(key) is None:
        raise HeaderInvalid(f"{HEADER} must be 1 to 255 visible ASCII characters", field=HEADER)
    asked = [scope["method"], scope["path"], scope.get("query_string", b"").decode("latin-1"), body_digest]
    if EVERYTHING not in caller.scopes:
        asked += sorted(caller.scopes)
    return Claim(tenant=caller.tenant, key=key, digest=sha256_bytes("\n".join(asked).encode("utf-8", "surrogatepass")))


def _again(known: Known, claim: Claim) -> Response:
    if known.digest != claim.digest:
        raise IdempotencyConflict(field=HEADER)
    if known.answer is None:
        raise RequestStillRunning(field=HEADER, retry_after_seconds=1)
    answer = known.answer
    return Response(answer.body, status_code=answer.status, headers={**answer.headers, REPLAYED: "true"})


def _is_kept(name: str) -> bool:
    return name.lower() in _KEPT_HEADERS or name.lower().startswith(_OWN_HEADERS)


async def _read(receive: Receive) -> tuple[list[Message], bytes]:
    messages: list[Message] = []
    while True:
        message = await receive()
        messages.append(message)
        if not message.get("more_body", False):
            return messages, b"".join(each.get("body", b"") for each in messages)
