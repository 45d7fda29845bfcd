"""A streamed answer of the engine: server-sent events, handed on as bytes, so that each costs next to nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx

from serving.errors import EngineCallError, EngineTimeout, EngineUnavailable

_DATA = b"data:"
_DONE = b"[DONE]"
_FINISH_SECONDS = 1.0


class EngineStream:
    """The data of one event after the other, up to the one that says that the answer is complete."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        """Read `pieces` of the answer's body, however they are cut."""
        self._pieces = pieces
        self._is_complete = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the data of each event as soon as it is here.

        Raises:
            EngineCallError: when the stream breaks off or falls silent.
        """
        rest = b""
        try:
            async for piece in self._pieces:
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    if not line.startswith(_DATA):
                        continue
                    data = line[len(_DATA) :].strip()
                    if data == _DONE:
                        self._is_complete = True
                        return
                    yield data
        except httpx.HTTPError as exc:
            raise translated(exc) from exc

    async def finish(self) -> None:
        """Read what follows a complete answer, which is nothing: the connection can then carry the next request."""
        if not self._is_complete:
            return
        try:
            async with asyncio.timeout(_FINISH_SECONDS):
                async for _ in self._pieces:
                    pass
        except (httpx.HTTPError, TimeoutError):
            return  # the answer was complete; the connection is closed instead


def translated(error: httpx.HTTPError) -> EngineCallError:
    """Return what it means for a call that the engine's connection failed so."""
    if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout):
        return EngineTimeout()
    return EngineUnavailable(f"the engine did not answer: {type(error).__name__}")
