"""Admission in front of vLLM: a request passes once it has seats and its adapter's lease, and holds them as it runs.

Pure ASGI middleware inside the guard. It reads the body once, finds adapter and size of the request, waits for the
pool, and passes the same body on. A client that goes away while it waits leaves the queue; one that reads slowly holds
nothing once the engine is done. Requests for the base model need seats as well, in the same queues: what vLLM was given
beyond its seats would run before whoever is admitted next. What vLLM will not understand passes, for vLLM to answer; it
holds nothing, so nothing of it can run. Who asks for an adapter that may not be served now hears so before it waits.
What is refused or ended further in is answered by vLLM, whose answer gets the headers that ours would have had.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, cast

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kit.errors import LorryError, RequestTooLarge
from serving.engine.pool.admission import Ticket
from serving.engine.pool.crowd import Crowd
from serving.engine.pool.limits import CLASSES, RequestClass
from serving.engine.pool.pool import AdapterPool
from serving.engine.resolver import is_version_id, noting_refusals
from serving.engine.sequences import Hold
from serving.errors import EngineError, OrderInvalid

CLASS_HEADER = b"x-lorry-class"
TENANT_HEADER = b"x-lorry-tenant"
ASK_ANOTHER_HEADER = b"x-lorry-ask-another"
DEADLINE_HEADER = b"x-lorry-deadline"
_CHAT = "/v1/chat/completions"
_PATHS = frozenset({_CHAT, "/v1/completions"})
_MAX_BODY_BYTES = 8 << 20
_BYTES_PER_TOKEN = 4
_COMPLETION_TOKENS = 16  # vLLM's own, for completions that do not say
_RETRY_SECONDS = 1
_OF_THE_ENGINE = frozenset({413, 429, 503})  # nothing that the request names is wrong


Release = Callable[[], None]
"""Gives back what a request holds."""


@dataclass(frozen=True, kw_only=True)
class Admittance:
    """What the door needs of the engine that it guards; put at `app.state.lorry_admittance`.

    Attributes:
        pool: gives leases and seats.
        most_tokens: of prompt and answer together, of one sequence; what a chat without a limit may come to.
        deadline_seconds: how long a request waits for its turn, by class.
        gate: lets a version pass that may be served now, or raises the LorryError that refuses it.
        on_refused: told of every request that is not admitted.
        crowd: counts who is inside, whatever it asks for.
        stopping: done, with the reason, once the engine stops: whoever has no lease by then gets none.
    """

    pool: AdapterPool
    most_tokens: int
    deadline_seconds: Mapping[RequestClass, float]
    gate: Callable[[str], None] = lambda version_id: None
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
        admittance = cast("Admittance", scope["app"].state.lorry_admittance)
        try:
            body = await _read(receive)
            if body is None:  # the client went away
                return
            asked = _ask(body, scope, most_tokens=admittance.most_tokens)
        except LorryError as exc:
            admittance.on_refused(exc)
            await _refuse(send, exc)
            return
        rest = _Replay(body, receive)
        with admittance.crowd.inside():
            try:
                if asked is None:
                    admittance.pool.require_admitting()
                    with Hold.nothing().during():
                        await self._app(scope, rest, send)
                else:
                    await self._admit(asked, admittance, scope, rest, send)
            except LorryError as exc:  # vLLM's handlers answer their own
                admittance.on_refused(exc)
                await _refuse(send, exc)
            finally:
                rest.close()

    async def _admit(self, asked: _Asked, admittance: Admittance, scope: Scope, rest: _Replay, send: Send) -> None:
        _pass_gate(admittance, asked.ticket)
        release = await _unless_gone(admittance, asked, rest)
        if release is not None:
            with Hold(release, expected=asked.sequences).during():
                _pass_gate(admittance, asked.ticket)  # it may have closed meanwhile
                with noting_refusals() as refusals:
                    await self._app(scope, rest, _explained(send, refusals))


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What a request asks the pool for, and how many sequences vLLM will make of it one after another.

    `patience_seconds` is how long whoever asks will wait for the whole answer.
    """

    ticket: Ticket
    sequences: float
    patience_seconds: float = math.inf


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


def _pass_gate(admittance: Admittance, ticket: Ticket) -> None:
    if ticket.version_id is not None:
        admittance.gate(ticket.version_id)


async def _unless_gone(admittance: Admittance, asked: _Asked, rest: _Replay) -> Release | None:
    """Return what gives the place back, or None when the client goes away before there is one.

    Raises:
        LorryError: why there is none.
    """
    deadline_seconds = min(admittance.deadline_seconds[asked.ticket.kind], asked.patience_seconds)
    entering = asyncio.ensure_future(admittance.pool.enter(asked.ticket, deadline_seconds=deadline_seconds))
    try:
        events: set[asyncio.Future[Any]] = {entering, rest.next(), admittance.stopping}
        await asyncio.wait(events, return_when=asyncio.FIRST_COMPLETED)
    except BaseException:
        await _give_up(entering)
        raise
    if entering.done():
        return entering.result()
    await _give_up(entering)
    if admittance.stopping.done():
        raise admittance.stopping.result().with_traceback(None)
    return None


async def _give_up(entering: asyncio.Task[Release]) -> None:
    """Leave, and give back what was granted at the same moment, even when nobody waits for that any more."""
    entering.add_done_callback(_release_granted)
    entering.cancel()
    await asyncio.wait({entering})


def _release_granted(entering: asyncio.Task[Release]) -> None:
    if not entering.cancelled() and entering.exception() is None:
        entering.result()()


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


def _ask(body: bytes, scope: Scope, *, most_tokens: int) -> _Asked | None:
    """Return what the request asks the pool for; None when vLLM will not take it: then vLLM says why.

    Raises:
        OrderInvalid: when the class is none, or `n` is no whole number: vLLM would take some of those for one.
    """
    headers = dict(scope["headers"])
    kind = _class(headers.get(CLASS_HEADER, b"live").decode("latin-1"))
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(request, dict):
        return None
    name = request.get("model")
    seats = _choices(request.get("n")) * _prompts(request.get("prompt"))
    answer_tokens = _answer_tokens(request, path=scope["path"], most_tokens=most_tokens)
    ticket = Ticket(
        version_id=name if isinstance(name, str) and is_version_id(name) else None,
        kind=kind,
        tenant=headers.get(TENANT_HEADER, b"").decode("latin-1")[:128],
        tokens=len(body) // _BYTES_PER_TOKEN + answer_tokens * seats,
        seats=seats,
    )
    # A beam search makes new sequences all the time: it is over when it is answered.
    sequences = math.inf if request.get("use_beam_search") else seats
    return _Asked(ticket=ticket, sequences=sequences, patience_seconds=_patience(headers.get(DEADLINE_HEADER)))


def _class(name: str) -> RequestClass:
    for kind in CLASSES:
        if name == kind:
            return kind
    field = CLASS_HEADER.decode()
    raise OrderInvalid(f"{field} is {name[:32]!r}; it is one of {', '.join(CLASSES)}", field=field)


def _patience(header: bytes | None) -> float:
    """Return how many seconds whoever asks will wait; what is no such number says nothing."""
    try:
        seconds = math.inf if header is None else float(header)
    except ValueError:
        return math.inf
    return max(0.0, seconds) if not math.isnan(seconds) else math.inf


def _prompts(prompt: Any) -> int:
    """Count the prompts of a completion: a text, tokens, or a list of either."""
    several = isinstance(prompt, list) and prompt and isinstance(prompt[0], (str, list))
    return len(prompt) if several else 1


def _choices(n: Any) -> int:
    if n is not None and type(n) is not int:
        raise OrderInvalid("n must be a whole number", field="n")
    return max(1, n or 1)


def _answer_tokens(request: dict[str, Any], *, path: str, most_tokens: int) -> int:
    """Return what one answer may come to; what vLLM may read otherwise than we do counts as all that there is."""
    given = [limit for name in ("max_completion_tokens", "max_tokens") if (limit := request.get(name)) is not None]
    if not given:
        return most_tokens if path == _CHAT else min(most_tokens, _COMPLETION_TOKENS)
    return max(min(most_tokens, limit) if type(limit) is int and limit >= 0 else most_tokens for limit in given)


def _explained(send: Send, refusals: Sequence[LorryError]) -> Send:
    """Return what sends vLLM's answer; one of a refusal of ours gets its headers."""

    async def send_explained(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] >= HTTPStatus.BAD_REQUEST:
            error = next((each for each in refusals if each.status_code == message["status"]), None)
            if error is not None:
                message = {**message, "headers": [*message["headers"], *_advice(error)]}
        await send(message)

    return send_explained


async def _refuse(send: Send, error: LorryError) -> None:
    """Answer in OpenAI's shape."""
    status = error.status_code
    param = error.field or (None if status in _OF_THE_ENGINE else "model")
    content = {"error": {"message": error.message, "type": type(error).__name__, "param": param, "code": status}}
    headers = [(b"content-type", b"application/json"), *_advice(error)]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(content).encode()})


def _advice(error: LorryError) -> list[tuple[bytes, bytes]]:
    """Return the headers that say when, and whom, to ask again."""
    headers = []
    seconds = error.details.get("retry_after_seconds", _RETRY_SECONDS if error.status_code == 503 else None)
    if seconds is not None:
        headers.append((b"retry-after", str(seconds).encode()))
    if isinstance(error, EngineError) and error.ask_another:
        headers.append((ASK_ANOTHER_HEADER, b"true"))
    return headers
