"""The entrance of ``/v1``: nobody passes without a key or beyond their tenant's limits; no body is read before that."""

from __future__ import annotations

import time
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kit.errors import LorryError
from serving.gateway.auth import Authenticator, presented_key
from serving.gateway.limits.limiter import Limiter
from serving.gateway.passage.refusing import refuse

PREFIX: Final = "/v1/"


class Entrance:
    """Lets callers in; what it knows of them is in ``scope["state"]["caller"]``."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on as its caller's, or refuse it."""
        if scope["type"] != "http" or not scope["path"].startswith(PREFIX):
            await self._app(scope, receive, send)
            return
        authenticator: Authenticator = scope["app"].state.authenticator
        limiter: Limiter = scope["app"].state.limiter
        headers: dict[str, str] = {}

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(headers)
            await send(message)

        try:
            caller = await authenticator.authenticate(presented_key(Headers(scope=scope).get("authorization", "")))
            place = limiter.enter(caller.tenant, caller.limit)
        except LorryError as exc:
            await refuse(exc, scope)(scope, receive, send)
            return
        headers |= place.headers
        scope.setdefault("state", {}).update(caller=caller, began=time.monotonic())
        with place:
            await self._app(scope, receive, tell)
