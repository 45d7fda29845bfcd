"""Every request has an id: the caller's own, or one of ours. It is answered, logged, and goes along to the engine.

The log has one line a request, without content: method, route template, status, duration, tenant, key id, and of the
user a keyed digest, which tells two users apart and names none.
"""

from __future__ import annotations

import hmac
import logging
import re
import time
import uuid
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.gateway.auth import Caller
from serving.gateway.passage.travel import REQUEST_ID_HEADER, Travel, travelling

_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
_DIGITS = 16
_log = logging.getLogger("serving.gateway.requests")


class Identified:
    """Gives each request its id, and writes its line when it has ended."""

    def __init__(self, app: ASGIApp, *, log_key: bytes) -> None:
        """Wrap `app`; `log_key` is what users' digests are keyed with, the same in every gateway."""
        self._app = app
        self._log_key = log_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on under its id."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        request_id = given if _ID.fullmatch(given) else uuid.uuid4().hex
        token = travelling.set(Travel(request_id=request_id))
        began, status = time.perf_counter(), 499

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            travelling.reset(token)
            if scope["path"] not in _QUIET:
                milliseconds = round(1000 * (time.perf_counter() - began), 1)
                _log.info("request", extra={"fields": self._line(scope, request_id, status, milliseconds)})

    def _line(self, scope: Scope, request_id: str, status: int, milliseconds: float) -> dict[str, Any]:
        state = scope.get("state", {})
        caller: Caller | None = state.get("caller")
        line = {
            "request_id": request_id,
            "method": scope["method"][:16],
            "route": getattr(scope.get("route"), "path", "unmatched"),
            "status": status,
            "milliseconds": milliseconds,
        }
        if caller is not None:
            line |= {"tenant": caller.tenant, "key_id": caller.key_id}
            if (user := user_of(scope)) is not None:
                line["user"] = self._digest(caller.tenant, user)
        return line

    def _digest(self, tenant: str, user: str) -> str:
        return hmac.digest(self._log_key, f"user:{tenant}\n{user}".encode(), "sha256").hex()[:_DIGITS]


def user_of(scope: Scope) -> str | None:
    """Return whom a request was about, once it was routed: named in its path, or by its endpoint; None = nobody."""
    named: str | None = scope.get("state", {}).get("user") or scope.get("path_params", {}).get("user_id")
    return named
