"""Whoever reads slowly keeps nobody waiting, in a real engine."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from lorry.local.stack import Stack
from registry.manifest import Manifest
from tests.support.waiting import until

Publish = Callable[..., Awaitable[Manifest]]
RandomAdapter = Callable[..., Path]
CHOICES, WORDS = 16, 200
"""Each word comes with twenty others and their probabilities, some 1.6 KB: 5 MB in all, more than sockets hold."""


async def residency(engine: httpx.AsyncClient) -> dict[str, Any]:
    return dict((await engine.get("/lorry/residency")).json())


async def held(engine: httpx.AsyncClient, version_id: str) -> dict[str, Any]:
    response = await engine.get(f"/lorry/adapters/{version_id}")
    assert response.status_code == 200, response.text
    return dict(response.json())


@asynccontextmanager
async def asking(stack: Stack, body: dict[str, Any]) -> AsyncIterator[asyncio.StreamReader]:
    """Ask over a socket whose reader takes what it is told to, and no more than a few KB ahead."""
    address = urlsplit(stack.plan.engine_url)
    channel = socket.socket()
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    channel.setblocking(False)
    await asyncio.get_running_loop().sock_connect(channel, (address.hostname, address.port))
    reader, writer = await asyncio.open_connection(sock=channel, limit=4096)
    content = json.dumps(body).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {address.netloc}\r\nConnection: close\r\n"
        f"Authorization: Bearer {stack.plan.engine_token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    writer.write(head.encode() + content)
    try:
        yield reader
    finally:
        writer.close()


async def test_who_reads_a_byte_a_second_holds_no_slot(
    stack: Stack,
    engine: httpx.AsyncClient,
    versions: list[str],
    random_adapter: RandomAdapter,
    publish: Publish,
) -> None:
    version_id = (await publish(random_adapter(70), user="slow")).version_id
    body = {
        "model": version_id,
        "messages": [{"role": "user", "content": "Once upon a time"}],
        **{"stream": True, "n": CHOICES, "max_tokens": WORDS, "ignore_eos": True, "logprobs": True, "top_logprobs": 20},
    }
    async with asking(stack, body) as reader:
        answer = bytearray()

        async def read_slowly() -> None:
            while True:
                answer.extend(await reader.readexactly(1))
                await asyncio.sleep(1)

        async def is_computed() -> bool:
            return bool(answer) and (await held(engine, version_id))["leases"] == 0

        reading = asyncio.create_task(read_slowly())
        try:
            await until(is_computed, within_seconds=180)
            assert (await residency(engine))["inside"] == 1, "all of it was sent: this says nothing of slow readers"
            assert (await held(engine, version_id))["slot"] is not None
            question = {"prompt": "Hello", "max_tokens": 2, "ignore_eos": True}
            others = await asyncio.gather(
                *(engine.post("/v1/completions", json={**question, "model": other}) for other in versions)
            )
            assert [other.status_code for other in others] == [200] * 4
            assert (await held(engine, version_id))["slot"] is None, "four others have the four slots"
            assert (await residency(engine))["inside"] == 1
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        answer.extend(await reader.read())
    text = answer.decode()
    assert text.startswith("HTTP/1.1 200 OK")
    assert text.count('"finish_reason":"length"') == CHOICES, "the answer is whole, however late"
    assert "data: [DONE]" in text
