"""Lines of a stream that ends them with LF (or CR LF), as server-sent events and lines of JSON do.

httpx cuts lines wherever Python's ``str.splitlines`` does: at U+2028, U+0085 and others as well, which JSON strings
hold unescaped. Whoever may choose a text in a stream could then end a line and begin another of their own.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator


def lines(pieces: Iterable[bytes]) -> Iterator[str]:
    """Yield the lines of UTF-8 that comes in pieces, without their ends."""
    rest: list[bytes] = []
    for piece in pieces:
        yield from _cut(rest, piece)
    if rest and (last := b"".join(rest)):
        yield _text(last)


async def async_lines(pieces: AsyncIterable[bytes]) -> AsyncIterator[str]:
    """Yield the lines of UTF-8 that comes in pieces, without their ends."""
    rest: list[bytes] = []
    async for piece in pieces:
        for line in _cut(rest, piece):
            yield line
    if rest and (last := b"".join(rest)):
        yield _text(last)


def _cut(rest: list[bytes], piece: bytes) -> Iterator[str]:
    """Yield the lines that a piece ends; `rest` holds what is not ended yet, in pieces, before and after."""
    first, *others = piece.split(b"\n")
    rest.append(first)
    if not others:
        return
    yield _text(b"".join(rest))
    rest[:] = [others.pop()]
    for line in others:
        yield _text(line)


def _text(line: bytes) -> str:
    return line.removesuffix(b"\r").decode(errors="replace")
