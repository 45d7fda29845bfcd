"""What all requests together may have in this process's memory, and of that each tenant its half.

How large one body may be bounds one request. A tenant may have hundreds running, each of them a bulk upload.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.errors import TooManyRequestsAtOnce
from serving.gateway.auth import Caller
from serving.gateway.passage.refusing import refuse

FREE_BYTES: Final = 64 << 10
_SHARE = 2


class Luggage:
    """Refuses bodies that would not fit beside those that are there; stands inside the entrance."""

    def __init__(self, app: ASGIApp, *, sizes: Callable[[Scope], int], most_bytes: int) -> None:
        """Wrap `app`.

        Args:
            app: what reads the bodies.
            sizes: how many bytes a request's body may have.
            most_bytes: of all bodies together that are larger than 64 KiB.
        """
        self._app = app
        self._sizes = sizes
        self._most_bytes = most_bytes
        self._held: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with its body's bytes counted until it has ended."""
        caller: Caller | None = scope.get("state", {}).get("caller")
        size_bytes = 0 if caller is None or scope["type"] != "http" else self._weigh(scope)
        if caller is None or size_bytes <= FREE_BYTES:
            await self._app(scope, receive, send)
            return
        if not self._fits(caller.tenant, size_bytes):
            error = TooManyRequestsAtOnce(
                f"the bodies of this tenant's running requests may have {self._most_bytes // _SHARE} bytes together",
                retry_after_seconds=1,
            )
            await refuse(error, scope)(scope, receive, send)
            return
        self._held[caller.tenant] += size_bytes
        try:
            await self._app(scope, receive, send)
        finally:
            self._held[caller.tenant] -= size_bytes
            self._held += Counter()  # which forgets tenants that hold nothing

    def _weigh(self, scope: Scope) -> int:
        """Return how many bytes may come: as many as were declared, or as the route takes."""
        headers, most = Headers(scope=scope), self._sizes(scope)
        if "transfer-encoding" in headers:
            return most
        return min(int(headers.get("content-length", "0")), most)

    def _fits(self, tenant: str, size_bytes: int) -> bool:
        if self._held.total() + size_bytes > self._most_bytes:
            return False
        return self._held[tenant] + size_bytes <= self._most_bytes // _SHARE
