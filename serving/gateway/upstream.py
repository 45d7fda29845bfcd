"""Passing a chat completion to the engine and its answer back.

The engine knows version ids only; callers see the model that they asked for. When a caller goes away, the engine's
connection is closed at once, which aborts the request there. Tokens are counted whether or not the caller asked for it.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from kit.errors import LorryError
from serving.errors import DeadlineExceeded, EngineAnswerUnusable
from serving.gateway.answerers import Answerer
from serving.gateway.passage.travel import travelling
from serving.gateway.usage.meter import Meter

T = TypeVar("T")
_EVENT_STREAM = "text/event-stream"
Render = Callable[["EngineEvents"], AsyncIterator[bytes]]


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """The way to the engine of whoever answers, and the meter that what it answers is counted by."""

    meter: Meter

    async def answer(self, payload: Mapping[str, Any], answerer: Answerer) -> dict[str, Any]:
        """Return the engine's whole answer; raises as `EngineClient.chat` does."""
        answer = await answerer.engine.chat(payload, headers=answerer.engine_headers)
        self.meter.count_usage(answerer.tenant, answerer.user, answer.get("usage"))
        return answer

    async def stream(self, payload: Mapping[str, Any], answerer: Answerer, *, render: Render) -> StreamingResponse:
        """Return a response that tells the engine's events as they come; what is refused at once rises from here."""
        stack = AsyncExitStack()
        options = {**(payload.get("stream_options") or {}), "include_usage": True}
        asked = {**payload, "stream": True, "stream_options": options}
        events = EngineEvents(
            await stack.enter_async_context(answerer.engine.stream(asked, headers=answerer.engine_headers))
        )

        def count() -> None:
            self.meter.count_usage(answerer.tenant, answerer.user, events.usage)

        stack.callback(count)
        return _ProxiedStream(render(events), stack=stack, headers=answerer.headers)


class _ProxiedStream(StreamingResponse):
    """A streaming response that lets go of the engine even when it is never read."""

    def __init__(self, content: AsyncIterator[bytes], *, stack: AsyncExitStack, headers: Mapping[str, str]) -> None:
        held = {**headers, "cache-control": "no-cache", "x-accel-buffering": "no"}
        super().__init__(content, media_type=_EVENT_STREAM, headers=held)
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._stack.aclose()


@dataclass
class EngineEvents:
    """The engine's server-sent events, one after the other; `usage` grows as they come.

    A stream that is left before its end has as many tokens counted as it had events, which is no more than there were.
    """

    stream: AsyncIterable[bytes]
    usage: dict[str, int] = field(default_factory=lambda: {"completion_tokens": 0})

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield what stands in the events, up to the last one.

        Raises:
            EngineCallError: when the stream breaks off.
            DeadlineExceeded: when the caller would not wait any longer.
        """
        async for data in _until_deadline(self.stream):
            self._count(data)
            yield data

    def _count(self, data: bytes) -> None:
        if b'"usage"' in data and isinstance(found := parse_event(data).get("usage"), dict):
            self.usage = found
        else:
            self.usage["completion_tokens"] += 1


async def _until_deadline(stream: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    travel = travelling.get()
    deadline = math.inf if travel is None else travel.deadline
    iterator = aiter(stream)
    while True:
        try:
            if deadline == math.inf:
                data = await anext(iterator)
            else:
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    data = await anext(iterator)
        except StopAsyncIteration:
            return
        except TimeoutError as exc:
            raise DeadlineExceeded from exc
        yield data


def parse_event(data: bytes) -> dict[str, Any]:
    """Return what an event of the engine holds.

    Raises:
        EngineAnswerUnusable: when it is no JSON object.
    """
    try:
        event = json.loads(data)
    except ValueError as exc:
        raise EngineAnswerUnusable("an event of the engine's answer is not JSON") from exc
    if not isinstance(event, dict):
        raise EngineAnswerUnusable("an event of the engine's answer is no object")
    return event


def frame(data: bytes, *, event: bytes | None = None) -> bytes:
    """Return one server-sent event."""
    return b"data: %b\n\n" % data if event is None else b"event: %b\ndata: %b\n\n" % (event, data)


async def guarded(frames: AsyncIterator[bytes], *, broken: Callable[[LorryError], bytes]) -> AsyncIterator[bytes]:
    """Yield frames; what breaks off ends in the frame that `broken` makes of the error."""
    try:
        async for each in frames:
            yield each
    except LorryError as exc:
        yield broken(exc)


async def unless_disconnected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns; when the client goes away first, cancel it.

    Raises:
        ClientDisconnect: when the client went away.
    """
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
