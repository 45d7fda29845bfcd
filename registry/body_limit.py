"""No request body is larger than the registry is told to read."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from kit.problems import problem


class BodyLimit:
    """Refuses bodies that are too large, or of unknown length, before reading a byte of them.

    A declared length is binding: the HTTP server never hands on more bytes than that.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 411 or 413."""
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        if "transfer-encoding" in headers:
            title = "The request's length must be declared."
            answer = problem(411, code="length-required", title=title, detail="Send content-length.")
            return await answer(scope, receive, send)
        if int(headers.get("content-length", "0")) > self._max_bytes:
            title = "The request is too large."
            detail = f"At most {self._max_bytes} bytes are accepted; files go to the upload URLs."
            return await problem(413, code="too-large", title=title, detail=detail)(scope, receive, send)
        return await self._app(scope, receive, send)
