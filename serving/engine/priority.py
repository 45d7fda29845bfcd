"""Live before batch inside vLLM as well: among the requests that were admitted, live prompts are computed first.

Admission gives a live request its seat; but vLLM computes the prompts of new requests first come, first served, so
that many steps may be full of batch prompts that were admitted a moment earlier; and when the KV cache is full the
latest request is put back, live or not. With ``--scheduling-policy priority`` vLLM orders both by a number, which it
takes from a header. What a client says about it does not count: its class does.

The number is a time, so that it ages: a batch request goes behind every live one that comes within a few seconds of it,
and before those that come later. Were it a class only, batch prompts would never be computed while live ones keep
coming, and would keep their slots and seats all the while.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from starlette.types import ASGIApp, Receive, Scope, Send

CLASS_HEADER = b"x-lorry-class"
PRIORITY_HEADER = b"x-vllm-priority"
BATCH_BEHIND_SECONDS = 5.0


class Priority:
    """Pure ASGI middleware, built by vLLM from ``--middleware``; innermost, so that it has the last word."""

    def __init__(self, app: ASGIApp, clock: Callable[[], float] = monotonic) -> None:
        self._app = app
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass `scope` on with the priority of the request's class; a header outweighs what the body says."""
        if scope["type"] == "http":
            scope = {**scope, "headers": self._headers(scope["headers"])}
        await self._app(scope, receive, send)

    def _headers(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        kept = [(name, value) for name, value in headers if name.lower() != PRIORITY_HEADER]
        is_batch = any(name.lower() == CLASS_HEADER and value == b"batch" for name, value in kept)
        seconds = self._clock() + (BATCH_BEHIND_SECONDS if is_batch else 0.0)
        return [*kept, (PRIORITY_HEADER, b"%d" % (2 * int(seconds * 1000) + is_batch))]  # vLLM takes the lower first


def is_live(priority: int) -> bool:
    """Say whether a request that vLLM knows with this priority is live."""
    return priority % 2 == 0
