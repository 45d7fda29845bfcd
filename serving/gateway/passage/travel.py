"""What a request takes along to the engine, the registry and the training service: its id and its deadline."""

from __future__ import annotations

import math
import time
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

import httpx

from serving.errors import DeadlineExceeded

REQUEST_ID_HEADER: Final = "x-request-id"
DEADLINE_HEADER: Final = "x-lorry-deadline"


@dataclass(frozen=True, kw_only=True)
class Travel:
    """One request; `deadline` is on the monotonic clock."""

    request_id: str
    deadline: float = math.inf

    @property
    def left_seconds(self) -> float:
        """How long its answer may still take; infinite without a deadline."""
        return self.deadline - time.monotonic()


travelling: ContextVar[Travel | None] = ContextVar("travelling", default=None)


class TravellingTransport(httpx.AsyncBaseTransport):
    """Sends the current request's id and what is left of its deadline along, and waits no longer than that."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one call.

        Raises:
            DeadlineExceeded: when there is no time left for it.
        """
        travel = travelling.get()
        if travel is not None:
            request.headers[REQUEST_ID_HEADER] = travel.request_id
            if travel.deadline < math.inf:
                left = travel.left_seconds
                if left <= 0:
                    raise DeadlineExceeded
                request.headers[DEADLINE_HEADER] = f"{left:.3f}"
                given = request.extensions.get("timeout", {})
                request.extensions["timeout"] = {
                    name: left if seconds is None else min(seconds, left) for name, seconds in given.items()
                }
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._inner.aclose()
