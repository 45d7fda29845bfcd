"""Sending bytes to signed URLs: as with `ObjectReader`, threads that wait and copy nothing, beside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

from urllib3.exceptions import HTTPError

from registry.client.object_pools import ObjectPools
from registry.errors import DigestMismatch, RegistryError, RegistryUnavailable
from registry.manifest import WEIGHTS_FILE

Pieces = Callable[[], Iterable[bytes | memoryview]]
"""Begins a body anew, for every attempt; a piece is used up before the next one is asked for."""
Progress = Callable[[int], None]
_AT_ONCE = 16


class ObjectWriter:
    """Makes PUTs, several at once."""

    def __init__(self, *, timeout_seconds: float) -> None:
        """Connect to nothing yet; the object store may be silent for `timeout_seconds`."""
        self._pools = ObjectPools(timeout_seconds=timeout_seconds, idle_connections=_AT_ONCE)
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="lorry-send")

    async def put(
        self,
        url: str,
        pieces: Pieces,
        *,
        size_bytes: int,
        headers: Mapping[str, str],
        on_sent: Progress | None = None,
    ) -> None:
        """Send `size_bytes` to a signed URL; an object that is there already stays.

        `on_sent` is told, on the caller's event loop, the bytes sent so far.

        Raises:
            RegistryUnavailable: when the object store does not answer or is overloaded.
            DigestMismatch: when the store says that other bytes arrived.
            RegistryError: when the store refuses, for instance because the URL has expired.
        """
        loop = asyncio.get_running_loop()

        def send() -> int:
            body = _begun(pieces())
            body = body if on_sent is None else _told(body, on_sent, loop)
            try:
                return self._put(url, body, headers={**headers, "content-length": str(size_bytes)})
            except _StoppedError as exc:
                raise exc.reason from None

        _raise_for(await loop.run_in_executor(self._threads, send))

    def _put(self, url: str, body: Iterable[bytes | memoryview], *, headers: Mapping[str, str]) -> int:
        try:
            answer = self._pools.leading_to(url).urlopen(
                "PUT", url, body=body, headers=headers, redirect=False, retries=False
            )
        except HTTPError as exc:
            raise RegistryUnavailable(f"the object store did not take {WEIGHTS_FILE}: {type(exc).__name__}") from exc
        return answer.status

    def close(self) -> None:
        """Send nothing more; what is on its way ends by itself, within its time-outs."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._pools.close()


class _StoppedError(Exception):
    """What `on_sent` raised, past a library that would take an OSError for the network's."""

    def __init__(self, reason: Exception) -> None:
        self.reason = reason


def _begun(pieces: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """Make the first piece now: of a body that fails before it has one, a store may keep an empty object."""
    rest = iter(pieces)
    return chain([first for first in [next(rest, b"")] if first], rest)


def _told(
    pieces: Iterable[bytes | memoryview], on_sent: Progress, loop: asyncio.AbstractEventLoop
) -> Iterator[bytes | memoryview]:
    sent_bytes = 0

    async def tell() -> None:
        on_sent(sent_bytes)

    for piece in pieces:
        yield piece
        sent_bytes += len(piece)
        try:
            asyncio.run_coroutine_threadsafe(tell(), loop).result()
        except Exception as exc:
            raise _StoppedError(exc) from exc


def _raise_for(status: int) -> None:
    if 200 <= status < 300 or status == 412:  # what was there before us is for `complete` to judge
        return
    if status >= 500 or status == 429:
        raise RegistryUnavailable(f"the object store answered {status}")
    if status == 400:
        raise DigestMismatch(
            "the object store refused the upload: other bytes arrived than declared", field=WEIGHTS_FILE
        )
    raise RegistryError(f"the object store answered {status}; begin again", field=WEIGHTS_FILE)
