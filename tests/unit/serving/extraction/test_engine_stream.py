from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from serving.errors import EngineCallError, EngineTimeout, EngineUnavailable
from serving.extraction.engine_stream import EngineStream

ANSWER = b'data: {"a": 1}\n\n: ping\n\nevent: x\ndata:{"b": "\xc3\xb6"}\r\n\r\ndata: [DONE]\n\n'
EVENTS = [b'{"a": 1}', b'{"b": "\xc3\xb6"}']


class Body:
    """An answer's body, cut as a test wants it; says how much of it was read."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self._given = pieces
        self.read = 0
        self.pieces = self._iterate()

    async def _iterate(self) -> AsyncIterator[bytes]:
        for piece in self._given:
            self.read += 1
            if isinstance(piece, Exception):
                raise piece
            yield piece


@pytest.mark.parametrize("size", [1, 2, 7, len(ANSWER)])
async def test_events_are_the_same_however_their_bytes_were_cut(size: int) -> None:
    body = Body(*(ANSWER[start : start + size] for start in range(0, len(ANSWER), size)))
    assert [data async for data in EngineStream(body.pieces)] == EVENTS


async def test_an_event_is_told_before_the_next_piece_is_waited_for() -> None:
    body = Body(b"data: one\n\nda", b"ta: two\n\n")
    events = aiter(EngineStream(body.pieces))
    assert (await anext(events), body.read) == (b"one", 1)
    assert (await anext(events), body.read) == (b"two", 2)


async def test_an_answer_without_an_end_ends_with_its_last_whole_event() -> None:
    assert [data async for data in EngineStream(Body(b"data: one\n\ndata: tw").pieces)] == [b"one"]


async def test_a_complete_answer_is_read_to_the_end_of_its_body_when_it_was_told() -> None:
    body = Body(ANSWER, b"\n", b"\n")
    stream = EngineStream(body.pieces)
    assert [data async for data in stream] == EVENTS
    assert body.read == 1
    await stream.finish()
    assert body.read == 3


async def test_an_answer_that_was_left_is_not_waited_for() -> None:
    body = Body(b"data: one\n\n", b"data: two\n\n")
    stream = EngineStream(body.pieces)
    assert await anext(aiter(stream)) == b"one"
    await stream.finish()
    assert body.read == 1


async def test_what_breaks_after_the_end_of_an_answer_is_nobodys_concern() -> None:
    stream = EngineStream(Body(ANSWER, httpx.ReadError("broke off")).pieces)
    assert [data async for data in stream] == EVENTS
    await stream.finish()


@pytest.mark.parametrize(
    ("broken", "error"), [(httpx.ReadTimeout("silent"), EngineTimeout), (httpx.ReadError("gone"), EngineUnavailable)]
)
async def test_what_breaks_within_an_answer_rises_after_what_came_before(
    broken: Exception, error: type[EngineCallError]
) -> None:
    events = aiter(EngineStream(Body(b"data: one\n\n", broken).pieces))
    assert await anext(events) == b"one"
    with pytest.raises(error):
        await anext(events)
