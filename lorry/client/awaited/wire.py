"""How calls reach the gateway: patiently, page by page, and as streams that go on where they broke off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
from tenacity import AsyncRetrying

from kit.lines import async_lines
from lorry.client.calls.call import Call, Page
from lorry.client.errors import ApiError, error_from
from lorry.client.following import Reader
from lorry.client.patience import (
    Endurance,
    checked_key,
    goes_without_key,
    not_answered,
    options,
    request_arguments,
)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class AsyncOpened:
    """A stream that has begun: the head of its answer, and its lines."""

    headers: Mapping[str, str]
    lines: AsyncIterator[str]


class AsyncWire:
    """One gateway, reached over HTTP; knows no noun."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        *,
        deadline_seconds: float | None,
        attempts: int,
        idempotency_key: str | None = None,
    ) -> None:
        """Send over `http`; what the others mean, `AsyncClient` says."""
        self._http = http
        self._deadline_seconds = deadline_seconds
        self._attempts = attempts
        self._idempotency_key = idempotency_key

    async def close(self) -> None:
        """Close every connection."""
        await self._http.aclose()

    def under(self, idempotency_key: str) -> AsyncWire:
        """Return a wire over the same connections, whose calls are done once under a key.

        Raises:
            Invalid: for what is no key.
        """
        key, deadline = checked_key(idempotency_key), self._deadline_seconds
        return AsyncWire(self._http, deadline_seconds=deadline, attempts=self._attempts, idempotency_key=key)

    async def send(self, call: Call[T]) -> T:
        """Send a call and return its result.

        Raises:
            ApiError: when it is refused, not answered, or not understood.
        """
        arguments = self._arguments(call)

        async def attempt() -> T:
            try:
                response = await self._http.request(**arguments)
                if goes_without_key(call, response, idempotency_key=self._idempotency_key):
                    del arguments["headers"]["idempotency-key"]
                    response = await self._http.request(**arguments)
            except httpx.HTTPError as exc:
                raise not_answered(exc) from exc
            return call.result(response)

        return await AsyncRetrying(**options(self._attempts))(attempt)

    async def pages(self, call: Callable[[str | None], Call[Page[T]]]) -> AsyncIterator[T]:
        """Yield what is on all pages of a listing; `call` makes the call for the page at a cursor."""
        cursor = None
        while True:
            page = await self.send(call(cursor))
            for item in page.items:
                yield item
            if (cursor := page.cursor) is None:
                return

    async def poll(self, call: Call[T], *, until: Callable[[T], bool], every_seconds: float) -> AsyncIterator[T]:
        """Yield a call's result now, and again whenever it has changed, until it is the last one."""
        last = None
        while True:
            found = await self.send(call)
            if found != last:
                yield found
            if until(found):
                return
            last = found
            await asyncio.sleep(every_seconds)

    async def follow(self, reader: Reader[T]) -> AsyncIterator[T]:
        """Yield what a stream tells, over as many connections as it takes."""
        endurance = Endurance(attempts=self._attempts)
        while True:
            async with self.open(reader.begin()) as opened:
                try:
                    async for line in opened.lines:
                        if (item := reader.feed(line)) is not None:
                            endurance.heard()
                            yield item
                        if reader.ended:
                            return
                    reader.close()
                    return
                except ApiError as exc:
                    pause = endurance.pause_after(exc)
            await asyncio.sleep(pause)

    @asynccontextmanager
    async def open(self, call: Call[Any]) -> AsyncIterator[AsyncOpened]:
        """Yield a stream, which is begun patiently and not begun again once it runs; leaving the block closes it."""
        request = self._http.build_request(**self._arguments(call))
        response: httpx.Response = await AsyncRetrying(**options(self._attempts))(self._begin, request)
        try:
            yield AsyncOpened(headers=response.headers, lines=_lines(response))
        finally:
            await response.aclose()

    async def _begin(self, request: httpx.Request) -> httpx.Response:
        try:
            response = await self._http.send(request, stream=True)
            if not response.is_success:
                await response.aread()
        except httpx.HTTPError as exc:
            raise not_answered(exc) from exc
        if not response.is_success:
            raise error_from(response)
        return response

    def _arguments(self, call: Call[Any]) -> dict[str, Any]:
        return request_arguments(call, deadline_seconds=self._deadline_seconds, idempotency_key=self._idempotency_key)


async def _lines(response: httpx.Response) -> AsyncIterator[str]:
    try:
        async for line in async_lines(response.aiter_bytes()):
            yield line
    except httpx.HTTPError as exc:
        raise not_answered(exc) from exc
