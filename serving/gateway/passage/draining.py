"""How a gateway stops: it says so, lets those go elsewhere who can, and finishes what runs."""

from __future__ import annotations

import asyncio
import gc
import signal
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_FULL_COLLECTION_EVERY = 100  # collections of the middle generation: by Python's own 10, one every few seconds


class Parting:
    """Once the gateway stops, every answer asks its client to connect anew, which then reaches another gateway."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""

        async def part(message: Message) -> None:
            if message["type"] == "http.response.start" and scope["app"].state.is_draining:
                MutableHeaders(scope=message)["connection"] = "close"
            await send(message)

        await self._app(scope, receive, part if scope["type"] == "http" else send)


class DrainingServer(uvicorn.Server):
    """Told to stop, it takes requests for a while, saying on ``/readyz`` that it should get none; then it ends.

    What runs by then has `timeout_graceful_shutdown` to end. A second signal ends it at once.
    """

    def __init__(self, config: uvicorn.Config, *, app: FastAPI, notice_seconds: float) -> None:
        super().__init__(config)
        self._draining_app = app
        self._notice_seconds = notice_seconds
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: Any = None) -> None:
        """Serve until told to stop."""
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    async def startup(self, sockets: Any = None) -> None:
        """Start, and have the garbage collector seldom look through everything: as long as it does, nobody is served.

        It forgets what stays for good; what a stream holds while it is open is looked through after so many more
        requests, for what leaves rubbish leaves it young.
        """
        await super().startup(sockets)
        gc.collect()
        gc.freeze()
        young, middle, _ = gc.get_threshold()
        gc.set_threshold(young, middle, _FULL_COLLECTION_EVERY)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop, or stop at once when asked again."""
        again = self._draining_app.state.is_draining or sig == signal.SIGINT
        self._draining_app.state.is_draining = True
        if again or self._loop is None:
            super().handle_exit(sig, frame)
        else:
            self._loop.call_soon_threadsafe(self._loop.call_later, self._notice_seconds, self._leave)

    def _leave(self) -> None:
        self.should_exit = True
