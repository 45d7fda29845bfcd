"""The way to the services behind the gateway: httpx's interface, aiohttp's connections.

httpx reads HTTP in Python, anew for every piece of every stream; aiohttp does so in C, for a fraction of the time. What
calls services keeps httpx's interface, and its errors.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Mapping

import aiohttp
import httpx
from yarl import URL

from kit.tls import authorities
from serving.gateway.passage.travel import TravellingTransport

# The services' servers close connections that are idle for 5 seconds: one about to be closed must not be reused.
_IDLE_SECONDS = 2.0
_AT_ONCE_BYTES = 1 << 20
_OWN_HEADERS = ("accept", "accept-encoding", "content-type", "user-agent")
# The first that fits; what fits none is a connection that broke.
_ERRORS: tuple[tuple[type[Exception], type[httpx.TransportError]], ...] = (
    (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout),
    (TimeoutError, httpx.ReadTimeout),
    (aiohttp.ClientConnectorError, httpx.ConnectError),
    (aiohttp.ServerDisconnectedError, httpx.RemoteProtocolError),
    (aiohttp.ClientPayloadError, httpx.RemoteProtocolError),
    (aiohttp.ClientResponseError, httpx.RemoteProtocolError),
)


class Network(httpx.AsyncBaseTransport):
    """At most so many connections, each used again while it is fresh. Proxies of the environment are ignored."""

    def __init__(self, *, connections: int) -> None:
        self._connections = connections
        self._tls = authorities()
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one call.

        Raises:
            httpx.TransportError: as httpx's own transport does.
        """
        if self._session is None:
            self._session = self._open()
        seconds: Mapping[str, float | None] = request.extensions.get("timeout", {})
        limits = aiohttp.ClientTimeout(
            connect=seconds.get("pool"), sock_connect=seconds.get("connect"), sock_read=seconds.get("read")
        )
        content = await request.aread()
        # Sent at once, much of it would hold everybody up; aiohttp sends a file piece by piece.
        body = io.BytesIO(content) if len(content) > _AT_ONCE_BYTES else content
        try:
            async with asyncio.timeout(_most(seconds)):  # aiohttp itself would write for ever to who does not read
                answer = await self._session.request(
                    request.method,
                    URL(str(request.url), encoded=True),
                    headers=_headers(request),
                    data=body or None,
                    allow_redirects=False,
                    timeout=limits,
                )
        except (aiohttp.ClientError, TimeoutError) as exc:
            raise _translated(exc) from exc
        return httpx.Response(
            answer.status, headers=list(answer.raw_headers), stream=_Body(answer, silence_seconds=seconds.get("read"))
        )

    async def aclose(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=_IDLE_SECONDS, ssl=self._tls)
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=_OWN_HEADERS,
        )


class _Body(httpx.AsyncByteStream):
    """What follows an answer's headers, as it comes; one that is left before its end closes its connection."""

    def __init__(self, answer: aiohttp.ClientResponse, *, silence_seconds: float | None) -> None:
        self._answer = answer
        self._silence_seconds = silence_seconds

    async def __aiter__(self) -> AsyncIterator[bytes]:
        content = self._answer.content
        try:
            while True:
                # When what comes is no HTTP any more, aiohttp hangs up, and tells neither who waits nor its own limit;
                # to who asks later it says RuntimeError.
                async with asyncio.timeout(self._silence_seconds):
                    piece = await content.readany()
                if not piece:
                    return
                yield piece
        except (aiohttp.ClientError, TimeoutError, RuntimeError) as exc:
            # What came before a break is told before it; aiohttp has it still, and tells of the break alone.
            if came := b"".join(content._buffer):
                yield came
            raise _translated(exc) from exc

    async def aclose(self) -> None:
        self._answer.close()  # of one that was read to its end the connection is back with the others by now


def network(*, connections: int = 64) -> TravellingTransport:
    """Return the way over the network for the calls that requests make, with at most so many connections."""
    return TravellingTransport(Network(connections=connections))


def _headers(request: httpx.Request) -> list[tuple[str, str]]:
    """Return the headers of a request whose body is sent whole."""
    return [
        (name.decode(), value.decode()) for name, value in request.headers.raw if name.lower() != b"transfer-encoding"
    ]


def _most(seconds: Mapping[str, float | None]) -> float | None:
    """Return how long it may take altogether until an answer begins; None = for ever."""
    given = [seconds.get(name) for name in ("pool", "connect", "write", "read")]
    return None if None in given else sum(each for each in given if each is not None)


def _translated(error: Exception) -> httpx.TransportError:
    found = next((ours for theirs, ours in _ERRORS if isinstance(error, theirs)), httpx.ReadError)
    return found(str(error))
