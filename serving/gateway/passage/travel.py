"""What a request takes along to the engine, the registry and the training service: its id and its deadline."""

from __future__ import annotations

import itertools
import math
import time
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

import httpx

from kit.tls import authorities
from serving.errors import DeadlineExceeded

REQUEST_ID_HEADER: Final = "x-request-id"
DEADLINE_HEADER: Final = "x-lorry-deadline"
# The services' servers close connections that are idle for 5 seconds: one about to be closed must not be reused.
_IDLE_SECONDS = 2.0
_POOL_CONNECTIONS = 64
_POOL_IDLE = 16


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


class _Pools(httpx.AsyncBaseTransport):
    """Several connection pools, taken in turn: httpx looks at every connection of a pool for every request."""

    def __init__(self, *, connections: int) -> None:
        count = max(1, connections // _POOL_CONNECTIONS)
        limits = httpx.Limits(
            max_connections=max(1, connections // count),
            max_keepalive_connections=_POOL_IDLE,
            keepalive_expiry=_IDLE_SECONDS,
        )
        self._pools = [
            httpx.AsyncHTTPTransport(limits=limits, verify=authorities(), trust_env=False) for _ in range(count)
        ]
        self._next = itertools.cycle(self._pools)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await next(self._next).handle_async_request(request)

    async def aclose(self) -> None:
        for pool in self._pools:
            await pool.aclose()


def network(*, connections: int = 64) -> TravellingTransport:
    """Return the way over the network, with at most so many connections; proxies of the environment are ignored."""
    return TravellingTransport(_Pools(connections=connections))
