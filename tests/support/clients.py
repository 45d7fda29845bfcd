"""`lorry.client` before a running gateway: the awaited one as a fixture, the blocking one in a thread beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import httpx
import pytest

from lorry.client import AsyncClient, Client
from tests.support.gateway_server import Gateway

T = TypeVar("T")


@pytest.fixture
async def lorry(gateway: Gateway) -> AsyncIterator[AsyncClient]:
    """The awaited client with the key of tenant `default`."""
    async with AsyncClient(url=gateway.url, key=gateway.key) as client:
        yield client


async def in_thread(gateway: Gateway, work: Callable[[Client], T]) -> T:
    """Let the blocking client work beside the gateway's event loop."""

    def run() -> T:
        with Client(url=gateway.url, key=gateway.key) as client:
            return work(client)

    return await asyncio.to_thread(run)


class Narrow(httpx.AsyncBaseTransport):
    """A network on which every page of a listing holds two rows; `pages` counts them."""

    def __init__(self) -> None:
        self._inner = httpx.AsyncHTTPTransport()
        self.pages = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if "limit" in request.url.params:
            self.pages += 1
            request.url = request.url.copy_set_param("limit", 2)
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self._inner.aclose()


class Cutting(httpx.AsyncBaseTransport):
    """A network that cuts every stream after its first piece, for as often as it is told to."""

    def __init__(self, *, cuts: int) -> None:
        self._inner = httpx.AsyncHTTPTransport()
        self.cuts = cuts

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._inner.handle_async_request(request)
        if self.cuts:
            self.cuts -= 1
            response.stream = _Cut(response.stream)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Cut(httpx.AsyncByteStream):
    def __init__(self, inner: Any) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._inner:
            yield piece
            raise httpx.ReadError("the network went away")

    async def aclose(self) -> None:
        await self._inner.aclose()
