"""How many requests a service had, how they ended, how long they took: by route template, never by id."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class RequestMetrics:
    """The measures of one service, named ``<prefix>_requests_total`` and ``<prefix>_request_seconds``."""

    def __init__(self, registry: CollectorRegistry, *, prefix: str) -> None:
        self.requests = Counter(
            f"{prefix}_requests",
            "Requests that ended, by route template, method and status; 499 = the client went away.",
            ("route", "method", "status"),
            registry=registry,
        )
        self.seconds = Histogram(
            f"{prefix}_request_seconds",
            "Seconds from a request's arrival to the end of its response.",
            ("route",),
            buckets=_BUCKETS,
            registry=registry,
        )


class MeasureRequests:
    """Pure ASGI middleware: it does not buffer what it measures."""

    def __init__(self, app: ASGIApp, *, metrics: RequestMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; count it when it has ended."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status, is_whole = 500, False

        async def watch(message: Message) -> None:
            nonlocal status, is_whole
            if message["type"] == "http.response.start":
                status = message["status"]
            is_whole = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            ended = status if is_whole or status >= 500 else 499
            self._count(scope, status=ended, seconds=time.perf_counter() - began)

    def _count(self, scope: Scope, *, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.requests.labels(route, method, str(status)).inc()
        self._metrics.seconds.labels(route).observe(seconds)
