"""Passing a chat completion to the engine and its answer back, as the caller's model.

The engine knows version ids only; callers see the model that they asked for. When a caller goes away,
the engine's connection is closed at once, which aborts the request there.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from kit.errors import LorryError
from registry.manifest import Manifest
from serving.extraction.engine_client import EngineClient
from serving.gateway.openai_errors import openai_error
from serving.gateway.schemas import ChatRequest, adapter_headers

T = TypeVar("T")
_DATA = "data:"
_DONE = "[DONE]"


async def answer_chat(engine: EngineClient, body: ChatRequest, manifest: Manifest) -> dict[str, Any]:
    """Return the engine's answer with the caller's model in it; raises as `EngineClient.chat` does."""
    answer = await engine.chat(body.to_engine(manifest.version_id), headers=engine.headers(manifest, kind="live"))
    return {**answer, "model": body.model}


async def stream_chat(engine: EngineClient, body: ChatRequest, manifest: Manifest) -> StreamingResponse:
    """Return a response that passes the engine's events on; refusals before the first event rise from here."""
    stack = AsyncExitStack()
    stream = engine.stream(body.to_engine(manifest.version_id), headers=engine.headers(manifest, kind="live"))
    lines = await stack.enter_async_context(stream)
    return _ProxiedStream(events(lines, model=body.model), stack=stack, headers=adapter_headers(manifest.version))


class _ProxiedStream(StreamingResponse):
    """A streaming response that lets go of the engine even when it is never read."""

    def __init__(self, content: AsyncIterator[str], *, stack: AsyncExitStack, headers: Mapping[str, str]) -> None:
        super().__init__(content, media_type="text/event-stream", headers={**headers, "cache-control": "no-cache"})
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._stack.aclose()


async def events(lines: AsyncIterator[str], *, model: str) -> AsyncIterator[str]:
    """Yield the engine's server-sent events with `model` in each; what breaks off ends in an error event."""
    try:
        async for line in lines:
            if line.startswith(_DATA):
                yield f"data: {_with_model(line.removeprefix(_DATA).strip(), model)}\n\n"
    except LorryError as exc:
        yield f"data: {json.dumps({'error': openai_error(exc.status_code, exc.message)})}\n\n"


def _with_model(data: str, model: str) -> str:
    if data == _DONE:
        return data
    event = json.loads(data)
    if "model" in event:
        event["model"] = model
    return json.dumps(event, ensure_ascii=False, separators=(",", ":"))


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
