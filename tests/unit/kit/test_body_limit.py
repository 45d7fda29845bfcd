from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from kit.body_limit import BodyLimit


async def send_body(*chunks: bytes, declared: int | None = None, limit: int = 10) -> tuple[int, bytes]:
    """Put `chunks` through a limited application that echoes; return status and body."""
    headers = [] if declared is None else [(b"content-length", str(declared).encode())]
    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/", "headers": headers}
    waiting = [
        {"type": "http.request", "body": chunk, "more_body": index < len(chunks) - 1}
        for index, chunk in enumerate(chunks)
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    await BodyLimit(echo, max_bytes=limit)(scope, receive, send)
    return sent[0]["status"], sent[1]["body"]


@pytest.mark.parametrize("chunks", [(b"",), (b"0123456789",), (b"01234", b"56789"), (b"0", b"", b"1")])
async def test_a_body_within_the_limit_arrives_whole(chunks: tuple[bytes, ...]) -> None:
    assert await send_body(*chunks) == (200, b"".join(chunks))


@pytest.mark.parametrize(
    ("chunks", "declared"), [((b"01234567890",), None), ((b"01234", b"567890"), None), ((b"x",), 11)]
)
async def test_a_larger_body_is_refused_declared_or_not(chunks: tuple[bytes, ...], declared: int | None) -> None:
    status, body = await send_body(*chunks, declared=declared)
    assert status == 413
    assert "10 bytes" in json.loads(body)["detail"]
