"""Who may come in, and through which doors: the first thing that sees a request.

vLLM's own API key guards some prefixes only, and every route that names a model resolves adapters. So all
routes are closed except those listed here, and all of those but health and metrics need the engine's token. Where GET
is public, so is HEAD, with which some probes ask.
"""

from __future__ import annotations

import hashlib
import hmac
import json

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.engine.settings import process_settings

_PUBLIC = frozenset({("GET", "/health"), ("GET", "/metrics")})
_OPEN = _PUBLIC | {("POST", "/v1/chat/completions"), ("POST", "/v1/completions")}
_OWN_PREFIX = "/lorry/"


class Guard:
    """Pure ASGI middleware, built by vLLM from ``--middleware``; outermost of vLLM's own."""

    def __init__(self, app: ASGIApp, *, token: str | None = None) -> None:
        """Guard `app`.

        Args:
            app: what answers the requests that are let through.
            token: the engine's token; this process's setting when None, which is how vLLM builds it.
        """
        self._app = app
        self._expected = _digest((token or process_settings().engine_token.get_secret_value()).encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass `scope` on, or answer 401 without the token and 404 for a closed route."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        door = (scope.get("method", scope["type"]), scope["path"])
        if door[0] == "HEAD" and ("GET", door[1]) in _PUBLIC:
            await self._app({**scope, "method": "GET"}, receive, _without_content(send))
            return
        if door not in _PUBLIC and not self._has_token(scope):
            await _refuse(scope, send, 401, "A valid bearer token is required.", "Unauthorized")
        elif scope["type"] != "http" or not (door in _OPEN or door[1].startswith(_OWN_PREFIX)):
            await _refuse(scope, send, 404, "There is no such route.", "NotFoundError")
        else:
            await self._app(scope, receive, send)

    def _has_token(self, scope: Scope) -> bool:
        """Compare digests in constant time, so that neither content nor length of the token shows."""
        sent = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, token = (sent[0] if len(sent) == 1 else b"").partition(b" ")
        return hmac.compare_digest(_digest(token.strip()), self._expected) and scheme.lower() == b"bearer"


def _without_content(send: Send) -> Send:
    async def send_head(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return send_head


async def _refuse(scope: Scope, send: Send, status: int, message: str, kind: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": message})
        return
    error = {"message": message, "type": kind, "param": None, "code": status}
    headers = [(b"content-type", b"application/json")]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"error": error}).encode()})


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
