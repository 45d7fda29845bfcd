"""Clients without a key that send or read slowly, or send a head without an end: none keeps a connection for long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from serving.gateway.passage.patience import PatientH11, patient_protocol
from tests.support.registry_server import serving


@pytest.fixture(params=["the one that uvicorn chooses", "h11"])
def protocol(request: pytest.FixtureRequest) -> type[asyncio.Protocol]:
    """A protocol with little patience."""
    chosen: Any = PatientH11 if request.param == "h11" else patient_protocol()
    return type("Impatient", (chosen,), {"head_seconds": 0.5, "stall_seconds": 0.5})


@pytest.fixture
async def address(protocol: type[asyncio.Protocol]) -> AsyncIterator[tuple[str, int]]:
    """Where an application listens that answers more than any socket's buffers hold, for ever."""
    app = FastAPI()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65_536
            await asyncio.sleep(0)

    async def answer() -> StreamingResponse:
        return StreamingResponse(endless())

    async def answer_shortly() -> dict[str, bool]:
        return {"ok": True}

    app.add_api_route("/", answer)
    app.add_api_route("/short", answer_shortly)
    async with serving(app, http=protocol) as url:
        parts = urlsplit(url)
        yield str(parts.hostname), int(parts.port or 0)


async def closed(reader: asyncio.StreamReader) -> bytes:
    """Return what comes until the connection is closed; fail when it is not."""
    async with asyncio.timeout(10):
        try:
            return await reader.read()
        except ConnectionError:
            return b""


async def test_who_says_nothing_is_not_waited_for(address: tuple[str, int]) -> None:
    reader, writer = await asyncio.open_connection(*address)
    assert await closed(reader) == b""
    writer.close()


async def test_a_head_that_drips_is_not_waited_for(address: tuple[str, int]) -> None:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"GET /short HTTP/1.1\r\nhost: a\r\n")

    async def drip() -> None:
        while True:
            writer.write(b"x-drop: y\r\n")
            await asyncio.sleep(0.05)

    dripping = asyncio.create_task(drip())
    assert b"200 OK" not in await closed(reader)
    dripping.cancel()
    writer.close()


async def test_a_second_head_that_drips_is_not_waited_for_either(address: tuple[str, int]) -> None:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"GET /short HTTP/1.1\r\nhost: a\r\n\r\n")
    assert b"200 OK" in await reader.readuntil(b"}")
    writer.write(b"GET /short HTTP/1.1\r\nhost: a\r\n")
    assert await closed(reader) == b""
    writer.close()


@pytest.mark.parametrize("endless", [b"x-long: " + b"a" * 65_536, b"a" * 65_536])
async def test_a_head_without_an_end_is_refused_before_it_fills_the_memory(
    address: tuple[str, int], endless: bytes
) -> None:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"GET /short?" + endless[:10] + b" HTTP/1.1\r\nhost: a\r\n" if b":" in endless else b"GET /short?")
    sent = 0
    try:
        while not reader.at_eof() and sent < 64 << 20:
            writer.write(endless)
            await asyncio.wait_for(writer.drain(), 5)
            sent += len(endless)
            await asyncio.sleep(0)
    except (ConnectionError, TimeoutError):
        pass
    assert sent < 32 << 20
    assert b"200 OK" not in await closed(reader)
    writer.close()


async def test_an_answer_that_nobody_reads_is_let_go_of(address: tuple[str, int]) -> None:
    reader, writer = await asyncio.open_connection(*address, limit=1024)
    writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    await reader.readexactly(10)
    await asyncio.sleep(2)
    async with asyncio.timeout(10):
        try:
            while await reader.readexactly(65_536):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.close()


async def test_who_reads_and_asks_again_at_once_is_served(address: tuple[str, int]) -> None:
    reader, writer = await asyncio.open_connection(*address)
    for _ in range(3):
        writer.write(b"GET /short HTTP/1.1\r\nhost: a\r\n\r\n")
        assert b"200 OK" in await reader.readuntil(b"}")
        await asyncio.sleep(0.7)  # longer than a head may take: between two requests nothing is being read
    writer.close()
