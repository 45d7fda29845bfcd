"""Admission in front of vLLM: a request for an adapter passes once it has a lease, and holds it while the engine runs.

Pure ASGI middleware inside the guard. It reads the body once, finds adapter and size of the request, waits for the
pool, and passes the same body on. A client that goes away while it waits leaves the queue; one that reads slowly holds
nothing once the engine is done. Requests for the base model pass, unless the engine is being drained.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kit.errors import LorryError, RequestTooLarge
from serving.engine.pool.admission import Ticket
from serving.engine.pool.crowd import Crowd
from serving.engine.pool.limits import CLASSES, RequestClass
from serving.engine.pool.pool import AdapterPool
from serving.engine.pool.pool_lease import PoolLease
from serving.engine.resolver import is_version_id
from serving.engine.sequences import Hold
from serving.errors import OrderInvalid

CLASS_HEADER = b"x-lorry-class"
TENANT_HEADER = b"x-lorry-tenant"
_PATHS = frozenset({"/v1/chat/completions", "/v1/completions"})
_MAX_BODY_BYTES = 8 << 20
_BYTES_PER_TOKEN = 4
_MOST_SEATS = 4096


@dataclass(frozen=True, kw_only=True)
class Admittance:
    """What the door needs of the engine that it guards; put at `app.state.lorry_admittance`.

    Attributes:
        pool: gives leases.
        deadline_seconds: how long a request waits for its turn, by class.
        on_refused: told of every request for an adapter that gets no lease.
        crowd: counts who is inside, whatever it asks for.
        stopping: done, with the reason, once the engine stops: whoever has no lease by then gets none.
    """

    pool: AdapterPool
    deadline_seconds: Mapping[RequestClass, float]
    on_refused: Callable[[LorryError], None] = lambda error: None
    crowd: Crowd = field(default_factory=Crowd)
    stopping: asyncio.Future[LorryError] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def stop(self, reason: LorryError) -> None:
        """Admit nobody any more, and refuse whoever waits or loads, for good; what runs goes on."""
        self.pool.stop(reason)
        if not self.stopping.done():
            self.stopping.set_result(reason)


class Door:
    """Built by vLLM from ``--middleware``."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass `scope` on, with a lease when it names an adapter; answer for vLLM when there is none to be had."""
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] not in _PATHS:
            await self._app(scope, receive, send)
            return
        try:
            body = await _read(receive)
            if body is None:  # the client went away
                return
            ticket = _ticket(body, dict(scope["headers"]))
        except LorryError as exc:
            await _refuse(send, exc)
            return
        admittance = cast("Admittance", scope["app"].state.lorry_admittance)
        rest = _Replay(body, receive)
        with admittance.crowd.inside():
            try:
                if ticket is None:
                    admittance.pool.require_admitting()
                    await self._app(scope, rest, send)
                else:
                    await self._admit(ticket, admittance, scope, rest, send)
            except LorryError as exc:  # vLLM's handlers answer their own
                if ticket is not None:
                    admittance.on_refused(exc)
                await _refuse(send, exc)
            finally:
                rest.close()

    async def _admit(self, ticket: Ticket, admittance: Admittance, scope: Scope, rest: _Replay, send: Send) -> None:
        lease = await _unless_gone(admittance, ticket, rest)
        if lease is not None:
            with Hold(lease.release, expected=ticket.seats).during():
                await self._app(scope, rest, send)


class _Replay:
    """Gives the body again, then whatever the client sends next; can be asked early whether it went away."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive
        self._next: asyncio.Task[Message] | None = None

    async def __call__(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        if self._next is None:
            return await self._receive()
        message = await asyncio.shield(self._next)
        self._next = None
        return message

    def close(self) -> None:
        """Stop listening to the client."""
        if self._next is not None:
            self._next.cancel()

    def next(self) -> asyncio.Task[Message]:
        """Return what comes after the body: nothing but the client's leaving."""
        if self._next is None:
            self._next = asyncio.ensure_future(self._receive())
        return self._next


async def _unless_gone(admittance: Admittance, ticket: Ticket, rest: _Replay) -> PoolLease | None:
    """Return a lease, or None when the client goes away before there is one.

    Raises:
        LorryError: why there is none.
    """
    deadline_seconds = admittance.deadline_seconds[ticket.kind]
    leasing = asyncio.ensure_future(admittance.pool.lease(ticket, deadline_seconds=deadline_seconds))
    try:
        events: set[asyncio.Future[Any]] = {leasing, rest.next(), admittance.stopping}
        await asyncio.wait(events, return_when=asyncio.FIRST_COMPLETED)
    except BaseException:
        await _give_up(leasing)
        raise
    if leasing.done():
        return leasing.result()
    await _give_up(leasing)
    if admittance.stopping.done():
        raise admittance.stopping.result().with_traceback(None)
    return None


async def _give_up(leasing: asyncio.Future[PoolLease]) -> None:
    leasing.cancel()
    (outcome,) = await asyncio.gather(leasing, return_exceptions=True)
    if isinstance(outcome, PoolLease):
        outcome.release()


async def _read(receive: Receive) -> bytes | None:
    """Return the whole body; None when the client goes away first.

    Raises:
        RequestTooLarge: when it is larger than requests need to be.
    """
    pieces, size_bytes, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        pieces.append(message.get("body", b""))
        size_bytes += len(pieces[-1])
        if size_bytes > _MAX_BODY_BYTES:
            raise RequestTooLarge
        more = message.get("more_body", False)
    return b"".join(pieces)


def _ticket(body: bytes, headers: Mapping[bytes, bytes]) -> Ticket | None:
    """Return what the request asks the pool for; None when it names no adapter: vLLM answers it as it is.

    Raises:
        OrderInvalid: when the class is none.
    """
    try:
        request = json.loads(body)
    except ValueError:
        return None
    if not isinstance(request, dict) or not isinstance(name := request.get("model"), str) or not is_version_id(name):
        return None
    return Ticket(
        version_id=name,
        kind=_class(headers.get(CLASS_HEADER, b"live").decode("latin-1")),
        tenant=headers.get(TENANT_HEADER, b"").decode("latin-1")[:128],
        tokens=len(body) // _BYTES_PER_TOKEN + _whole(request.get("max_tokens"), default=16),
        seats=min(_MOST_SEATS, _whole(request.get("n"), default=1) * _prompts(request.get("prompt"))),
    )


def _class(name: str) -> RequestClass:
    for kind in CLASSES:
        if name == kind:
            return kind
    field = CLASS_HEADER.decode()
    raise OrderInvalid(f"{field} is {name[:32]!r}; it is one of {', '.join(CLASSES)}", field=field)


def _prompts(prompt: Any) -> int:
    """Count the prompts of a completion: a text, tokens, or a list of either."""
    several = isinstance(prompt, list) and prompt and isinstance(prompt[0], (str, list))
    return len(prompt) if several else 1


def _whole(value: Any, *, default: int) -> int:
    return value if isinstance(value, int) and value > 0 else default


async def _refuse(send: Send, error: LorryError) -> None:
    """Answer in OpenAI's shape."""
    kind = type(error).__name__
    content = {
        "error": {"message": error.message, "type": kind, "param": error.field or "model", "code": error.status_code}
    }
    headers = [(b"content-type", b"application/json")]
    if (seconds := error.details.get("retry_after_seconds")) is not None:
        headers.append((b"retry-after", str(seconds).encode()))
    await send({"type": "http.response.start", "status": error.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(content).encode()})
