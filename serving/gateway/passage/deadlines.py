"""``x-lorry-deadline``: how many seconds the caller will wait. It goes along to every service, and counts here, too."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import replace

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.errors import DeadlineExceeded, HeaderInvalid
from serving.gateway.passage.entrance import PREFIX
from serving.gateway.passage.refusing import refuse
from serving.gateway.passage.travel import DEADLINE_HEADER, Travel, travelling


class Deadlines:
    """Answers 504 to requests that were not begun to be answered in time; a stream is ended by who writes it."""

    def __init__(self, app: ASGIApp, *, most_seconds: float) -> None:
        self._app = app
        self._most_seconds = most_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its deadline."""
        if scope["type"] != "http" or not scope["path"].startswith(PREFIX):
            await self._app(scope, receive, send)
            return
        try:
            asked = _asked(Headers(scope=scope).get(DEADLINE_HEADER))
        except HeaderInvalid as exc:
            await refuse(exc, scope)(scope, receive, send)
            return
        travel = travelling.get() or Travel(request_id="")
        token = travelling.set(replace(travel, deadline=time.monotonic() + asked))
        try:
            await self._within(min(self._most_seconds, asked), scope, receive, send)
        finally:
            travelling.reset(token)

    async def _within(self, seconds: float, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(seconds) as limit:

                async def watch(message: Message) -> None:
                    if message["type"] == "http.response.start":
                        limit.reschedule(None)
                    await send(message)

                await self._app(scope, receive, watch)
        except TimeoutError:
            if not limit.expired():
                raise
            await refuse(DeadlineExceeded(), scope)(scope, receive, send)


def _asked(header: str | None) -> float:
    if header is None:
        return math.inf
    try:
        seconds = float(header)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise HeaderInvalid(f"{DEADLINE_HEADER} must be seconds, more than 0", field=DEADLINE_HEADER)
    return seconds
