"""The way to the services behind the gateway, before servers of every sort."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest

from serving.gateway.passage.network import Network
from tests.support.ports import free_socket, reserved_port
from tests.support.waiting import until

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
WHOLE = HEAD + b"content-length: 2\r\n\r\nok"
Behave = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Server:
    """A server that answers as a test wants; it counts its connections and keeps what it was sent."""

    behave: Behave
    url: str = ""
    connections: int = 0
    closed: int = 0
    requests: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self.behave(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.closed += 1
            writer.close()

    async def take(self, reader: asyncio.StreamReader) -> None:
        """Read one request."""
        head = await reader.readuntil(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        body = await reader.readexactly(int(lengths[0].partition(b":")[2])) if lengths else b""
        self.requests.append(head + body)


@asynccontextmanager
async def listening(behave: Callable[[Server], Behave]) -> AsyncIterator[Server]:
    server = Server(behave=_nothing)
    server.behave = behave(server)
    sock = free_socket()
    listener = await asyncio.start_server(server.serve, sock=sock)
    server.url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()


async def _nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    return


def answering(*pieces: bytes, then: float = 0.0, after: asyncio.Semaphore | None = None) -> Callable[[Server], Behave]:
    """Answer every request with these bytes, and hang up if the last of them is none.

    The last of them waits `then` seconds, and until `after` is released.
    """

    def made(server: Server) -> Behave:
        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                await server.take(reader)
                for number, piece in enumerate(pieces):
                    if number and number == len(pieces) - 1:
                        await asyncio.sleep(then)
                        if after:
                            await after.acquire()
                    writer.write(piece)
                    await writer.drain()
                if not pieces[-1]:
                    return

        return behave

    return made


@asynccontextmanager
async def caller(server: Server, *, seconds: float = 30.0, connections: int = 8) -> AsyncIterator[httpx.AsyncClient]:
    transport = Network(connections=connections)
    async with httpx.AsyncClient(base_url=server.url, transport=transport, timeout=seconds) as http:
        yield http


async def test_a_call_and_its_answer_arrive_as_they_were_sent() -> None:
    compressed = gzip.compress(b"hello")
    head = HEAD + b"content-encoding: gzip\r\nx-two: 1\r\nx-two: 2\r\ncontent-length: %d\r\n\r\n" % len(compressed)
    async with listening(answering(head + compressed)) as server, caller(server) as http:
        path = "/a%2Fb:c/\u00f6?q=1%2B1&r=a+b"
        answer = await http.post(path, content=b"\x00body", headers={"x-one": "\u00f6".encode()})
        assert (answer.status_code, answer.text, answer.headers.get_list("x-two")) == (200, "hello", ["1", "2"])
        async with httpx.AsyncClient(timeout=60, base_url=server.url, trust_env=False) as plain:
            await plain.post(path, content=b"\x00body", headers={"x-one": "\u00f6".encode()})
    ours, theirs = (sorted(request.lower().split(b"\r\n")) for request in server.requests)
    assert ours == theirs


async def test_a_body_that_comes_in_pieces_is_sent_whole() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    async with listening(answering(WHOLE)) as server, caller(server) as http:
        assert (await http.post("/", content=pieces())).status_code == 200
    assert server.requests[0].endswith(b"\r\n\r\nab")


async def test_pieces_arrive_as_they_come_and_the_connection_is_used_again() -> None:
    answer = (CHUNKED, b"3\r\none\r\n", b"3\r\ntwo\r\n0\r\n\r\n")
    read = asyncio.Semaphore(0)
    async with listening(answering(*answer, after=read)) as server, caller(server) as http:
        for _ in range(3):
            async with http.stream("GET", "/") as response:
                pieces = response.aiter_raw()
                assert await anext(pieces) == b"one", "the rest is sent once this was read"
                read.release()
                assert [piece async for piece in pieces] == [b"two"]
    assert server.connections == 1


async def test_an_answer_that_is_left_is_noticed_by_its_server() -> None:
    def made(server: Server) -> Behave:
        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await server.take(reader)
            writer.write(CHUNKED + b"3\r\none\r\n")
            assert await reader.read() == b""

        return behave

    async with listening(made) as server, caller(server) as http:
        async with http.stream("GET", "/"):
            assert not server.closed
        await until(lambda: server.closed == 1)
        waiting = asyncio.create_task(http.get("/"))
        await until(lambda: server.connections == 2)
        waiting.cancel()
        await until(lambda: server.closed == 2)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((b"",), httpx.RemoteProtocolError),
        ((b"nonsense\r\n\r\n", b""), httpx.RemoteProtocolError),
        ((HEAD + b"content-length: 9\r\n\r\nshort", b""), httpx.RemoteProtocolError),
        ((CHUNKED + b"5\r\nwords", b""), httpx.RemoteProtocolError),
        ((CHUNKED + b"3\r\none\r\n", b"zz\r\n", b""), httpx.TransportError),
        ((CHUNKED + b"3\r\none\r\n", b"zz\r\n"), httpx.TransportError),
    ],
    ids=["nothing", "nonsense", "short", "cut", "no-chunk", "no-chunk-and-silence"],
)
async def test_an_answer_that_breaks_is_an_error_of_httpx(
    answer: tuple[bytes, ...], error: type[httpx.TransportError]
) -> None:
    async with listening(answering(*answer, then=0.05)) as server, caller(server, seconds=10.0) as http:
        with pytest.raises(error):
            await asyncio.wait_for(http.get("/"), 60)


async def test_what_came_before_a_break_is_told_before_it() -> None:
    broken = answering(CHUNKED + b"3\r\none\r\n", b"")
    async with listening(broken) as server, caller(server) as http, http.stream("GET", "/") as response:
        await until(lambda: server.closed == 1)
        await asyncio.sleep(0.1)  # the break is here, too, before anybody reads
        pieces = response.aiter_raw()
        assert await anext(pieces) == b"one"
        with pytest.raises(httpx.RemoteProtocolError):
            await anext(pieces)


async def test_silence_ends_at_the_limit_for_reading() -> None:
    slow = answering(CHUNKED, b"3\r\none\r\n", b"0\r\n\r\n", then=30)
    limit = httpx.Timeout(30, read=5)
    async with listening(slow) as server, caller(server) as http, http.stream("GET", "/", timeout=limit) as response:
        pieces = response.aiter_raw()
        assert await anext(pieces) == b"one"
        with pytest.raises(httpx.ReadTimeout):
            await anext(pieces)


async def test_a_server_that_does_not_read_is_not_waited_for_for_ever() -> None:
    def made(server: Server) -> Behave:
        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(30)

        return behave

    async with listening(made) as server, caller(server, seconds=0.2) as http:
        with pytest.raises(httpx.TimeoutException):
            await asyncio.wait_for(http.post("/", content=b"x" * (64 << 20)), 60)


async def test_who_is_not_there_cannot_be_connected_to() -> None:
    with reserved_port() as port:
        async with caller(Server(behave=_nothing, url=f"http://127.0.0.1:{port}")) as http:
            with pytest.raises(httpx.ConnectError):
                await http.get("/")


async def test_whoever_finds_every_connection_taken_waits_for_one_and_not_for_ever() -> None:
    answer = (CHUNKED, b"3\r\none\r\n", b"0\r\n\r\n")
    async with (
        listening(answering(*answer, then=60)) as server,
        caller(server, connections=1) as http,
        http.stream("GET", "/"),
    ):
        with pytest.raises(httpx.ConnectTimeout):
            await http.get("/", timeout=1.5)
        assert server.connections == 1
    async with listening(answering(*answer, then=0.5)) as server:
        async with caller(server, connections=1) as http:
            first, second = await asyncio.gather(http.get("/"), http.get("/"))
        assert first.text == second.text == "one"
    assert server.connections == 1
