"""No request is read beyond the limit, whether it declares its length or not."""

from __future__ import annotations

from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kit.errors import RequestTooLarge
from kit.problems import problem, problem_code

_DRAINED_BYTES = 64 << 20


class BodyLimit:
    """Answers 413 to bodies over `max_bytes`, or what it is for a request; others reach the application whole."""

    def __init__(self, app: ASGIApp, *, max_bytes: int | Callable[[Scope], int]) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body, and pass the request on or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        max_bytes = self._max_bytes if isinstance(self._max_bytes, int) else self._max_bytes(scope)
        declared = Headers(scope=scope).get("content-length", "0")
        messages = await (
            self._drain(receive, int(declared)) if int(declared) > max_bytes else self._read(receive, max_bytes)
        )
        if messages is None:
            await self._refuse(max_bytes)(scope, receive, send)
            return

        async def replay() -> Message:
            return messages.pop(0) if messages else await receive()

        await self._app(scope, replay, send)

    async def _read(self, receive: Receive, max_bytes: int) -> list[Message] | None:
        """Return the messages of the body, None when they are too large."""
        messages: list[Message] = []
        size = 0
        while True:
            message = await receive()
            messages.append(message)
            size += len(message.get("body", b""))
            if size > max_bytes:
                return None
            if not message.get("more_body", False):
                return messages

    async def _drain(self, receive: Receive, declared_bytes: int) -> None:
        """Read a moderate excess away: a client that still writes when we close would see a reset, not the answer."""
        if declared_bytes > _DRAINED_BYTES:
            return
        while (await receive()).get("more_body", False):
            pass

    def _refuse(self, max_bytes: int) -> ASGIApp:
        return problem(
            413,
            code=problem_code(RequestTooLarge),
            title=RequestTooLarge().message,
            detail=f"at most {max_bytes} bytes are accepted",
            headers={"connection": "close"},
        )
