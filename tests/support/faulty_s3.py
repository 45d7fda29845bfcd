"""A proxy in front of a real S3 that does to chosen requests what networks and stores do to all of them in the end.

    async with faulty_s3(storage_settings) as faulty:
        storage = ObjectStorage(faulty.settings)           # the same bucket and prefix, through the proxy
        faulty.answer("PUT .*incoming", status=503, times=2)
        faulty.truncate("GET ", at_bytes=1000)
        ...
        faulty.heal()
        assert faulty.count("DELETE|POST .*delete") == 1   # every request is remembered

A pattern is a regular expression that is searched for in "METHOD path?query", percent-decoded. The first rule that
fits a request decides; a rule fits `times` requests (None = all) after letting `skip` pass.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote, urlsplit

from kit.settings import StorageSettings

_ERROR_CODES = {429: "TooManyRequests", 500: "InternalError", 503: "SlowDown", 403: "AccessDenied"}
_HANG_SECONDS = 3600
Kind = Literal["answer", "stall", "hang", "truncate", "corrupt", "slow", "refuse", "lose"]


@dataclass(kw_only=True)
class Rule:
    """What happens to which requests; `amount` is a status, seconds, bytes or bytes a second, as `kind` needs."""

    pattern: re.Pattern[str]
    kind: Kind
    amount: float
    times: int | None
    skip: int
    code: str = ""
    hits: int = 0

    def takes(self, line: str) -> bool:
        """Say whether this request is one of the rule's."""
        if not self.pattern.search(line) or self.times == 0:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times = None if self.times is None else self.times - 1
        self.hits += 1
        return True


class FaultyS3:
    """One running proxy. Rules may be added and dropped at any time."""

    def __init__(self, settings: StorageSettings) -> None:
        upstream = urlsplit(settings.s3_endpoint_url or "")
        self._upstream = (upstream.hostname, upstream.port)
        self._real = settings
        self._rules: list[Rule] = []
        self._connections: set[asyncio.Task[None]] = set()
        self.requests: list[str] = []
        self.port = 0

    @property
    def url(self) -> str:
        """Where to send requests instead of to the store."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def settings(self) -> StorageSettings:
        """The store's settings, by way of the proxy."""
        return self._real.model_copy(update={"s3_endpoint_url": self.url})

    def answer(self, pattern: str, *, status: int, code: str = "", times: int | None = None, skip: int = 0) -> Rule:
        """Answer with an error instead of asking the store; `code` is S3's name for it."""
        rule = self._add("answer", pattern, status, times=times, skip=skip)
        rule.code = code or _ERROR_CODES.get(status, "InternalError")
        return rule

    def stall(self, pattern: str, *, seconds: float, times: int | None = None, skip: int = 0) -> Rule:
        """Say nothing for so long, then ask the store."""
        return self._add("stall", pattern, seconds, times=times, skip=skip)

    def hang(self, pattern: str, *, at_bytes: int, times: int | None = None, skip: int = 0) -> Rule:
        """Say nothing more after so many bytes of the answer's body, and keep the connection open."""
        return self._add("hang", pattern, at_bytes, times=times, skip=skip)

    def truncate(self, pattern: str, *, at_bytes: int, times: int | None = None, skip: int = 0) -> Rule:
        """Close the connection after so many bytes of the answer's body."""
        return self._add("truncate", pattern, at_bytes, times=times, skip=skip)

    def corrupt(self, pattern: str, *, at_bytes: int, times: int | None = None, skip: int = 0) -> Rule:
        """Flip one bit of the answer's body, at this byte."""
        return self._add("corrupt", pattern, at_bytes, times=times, skip=skip)

    def slow(self, pattern: str, *, bytes_per_second: float, times: int | None = None, skip: int = 0) -> Rule:
        """Send the answer's body at this speed."""
        return self._add("slow", pattern, bytes_per_second, times=times, skip=skip)

    def refuse(self, pattern: str, *, times: int | None = None, skip: int = 0) -> Rule:
        """Drop the connection before the store hears of the request."""
        return self._add("refuse", pattern, 0, times=times, skip=skip)

    def lose_answer(self, pattern: str, *, times: int | None = None, skip: int = 0) -> Rule:
        """Let the store carry the request out, then drop the connection instead of answering."""
        return self._add("lose", pattern, 0, times=times, skip=skip)

    def heal(self) -> None:
        """Drop every rule; requests that are held back go on to the store."""
        self._rules.clear()

    def count(self, pattern: str) -> int:
        """Return how many requests so far fit the pattern, whatever became of them."""
        return sum(bool(re.search(pattern, line)) for line in self.requests)

    def _add(self, kind: Kind, pattern: str, amount: float, *, times: int | None, skip: int) -> Rule:
        rule = Rule(pattern=re.compile(pattern), kind=kind, amount=amount, times=times, skip=skip)
        self._rules.append(rule)
        return rule

    def _rule_for(self, line: str) -> Rule | None:
        return next((rule for rule in self._rules if rule.takes(line)), None)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Handle one connection: one request, one answer."""
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._exchange(reader, writer)
        except (OSError, EOFError):
            pass  # the client went away, which is its right
        except asyncio.CancelledError:
            pass  # the proxy closes; nobody waits for this answer
        finally:
            self._connections.discard(task)
            writer.close()

    async def close(self) -> None:
        """Drop every connection."""
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *headers = head.decode("latin-1").split("\r\n")[:-2]
        body = await _read_body(headers, reader, writer)
        method, target, _ = first.split(" ")
        line = f"{method} {unquote(target)}"
        self.requests.append(line)
        rule = self._rule_for(line)
        if rule and rule.kind == "refuse":
            return _reset(writer)
        if rule and rule.kind == "answer":
            writer.write(_error(int(rule.amount), rule.code, with_body=method != "HEAD"))
            return await writer.drain()
        if rule and rule.kind == "stall":
            await asyncio.sleep(rule.amount)
        answer_head, answer = await self._ask_store(first, headers, body)
        if rule and rule.kind == "lose":
            return _reset(writer)
        writer.write(answer_head)
        return await _send(answer, writer, rule)

    async def _ask_store(self, first: str, headers: list[str], body: bytes) -> tuple[bytes, bytes]:
        """Return the head and the body of the store's answer; the Host header stays, for it is signed."""
        dropped = ("connection:", "expect:")
        kept = [header for header in headers if not header.lower().startswith(dropped)]
        reader, writer = await asyncio.open_connection(*self._upstream)
        try:
            writer.write("\r\n".join([first, *kept, "Connection: close", "", ""]).encode("latin-1") + body)
            await writer.drain()
            answer = await reader.read()
        finally:
            writer.close()
        head, _, rest = answer.partition(b"\r\n\r\n")
        lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
        return b"\r\n".join([*lines, b"Connection: close", b"", b""]), rest


async def _read_body(headers: list[str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Return the request's body as it came: chunks stay chunks."""
    named = {name.lower(): value.strip() for name, _, value in (header.partition(":") for header in headers)}
    if "100-continue" in named.get("expect", ""):
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await writer.drain()
    if "chunked" not in named.get("transfer-encoding", ""):
        return await reader.readexactly(int(named.get("content-length", "0")))
    body = b""
    while True:
        size = await reader.readuntil(b"\r\n")
        chunk = await reader.readexactly(int(size.split(b";")[0], 16) + 2)
        body += size + chunk
        if chunk == b"\r\n":
            return body


async def _send(body: bytes, writer: asyncio.StreamWriter, rule: Rule | None) -> None:
    match rule.kind if rule else None:
        case "hang":
            assert rule is not None
            writer.write(body[: int(rule.amount)])
            await writer.drain()
            await asyncio.sleep(_HANG_SECONDS)
            return
        case "truncate":
            assert rule is not None
            body = body[: int(rule.amount)]
        case "corrupt":
            assert rule is not None
            at = int(rule.amount)
            body = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :] if at < len(body) else body
        case "slow":
            assert rule is not None
            step = max(1, int(rule.amount / 10))
            for at in range(0, len(body), step):
                writer.write(body[at : at + step])
                await writer.drain()
                await asyncio.sleep(step / rule.amount)
            return
    writer.write(body)
    await writer.drain()


def _error(status: int, code: str, *, with_body: bool) -> bytes:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>told to</Message></Error>".encode()
    head = f"HTTP/1.1 {status} Told To\r\nContent-Type: application/xml\r\nConnection: close\r\n"
    return head.encode() + (f"Content-Length: {len(body)}\r\n\r\n".encode() + body if with_body else b"\r\n")


def _reset(writer: asyncio.StreamWriter) -> None:
    """Drop the connection without a word."""
    if writer.transport is not None:
        writer.transport.abort()


@asynccontextmanager
async def faulty_s3(settings: StorageSettings) -> AsyncIterator[FaultyS3]:
    """Run a proxy in front of the store that the settings name; without rules it only passes on."""
    proxy = FaultyS3(settings)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=1 << 20)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
        await server.wait_closed()
