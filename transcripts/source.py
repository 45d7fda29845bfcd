"""One input file, read once, in pieces, as checked UTF-8.

A source is opened without following a symbolic link and only when it is a regular file, and its size is
compared with the limit before a byte is read. What cannot be decoded is refused with file, line
and byte offset. A byte order mark is dropped; lines may end in LF or CRLF.
"""

from __future__ import annotations

import codecs
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from transcripts.errors import (
    TranscriptEmpty,
    TranscriptNotFound,
    TranscriptTooLarge,
    TranscriptTruncated,
    TranscriptUnreadable,
)

MAX_FILE_BYTES = 8 * 1000 * 1000 * 1000
MAX_TRANSCRIPT_BYTES = 16 * 1024 * 1024
_CHUNK_BYTES = 1 << 16
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a source, without its line end; `number` counts from 1.

    Of one that `is_too_long`, longer than `max_transcript_bytes`, there is no text.
    """

    number: int
    text: str
    is_too_long: bool = False


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much is read: of a file at all, and at once, which is one conversation as it stands in the file."""

    max_file_bytes: int = MAX_FILE_BYTES
    max_transcript_bytes: int = MAX_TRANSCRIPT_BYTES


@dataclass(frozen=True, kw_only=True)
class Source:
    """Bytes with a name for error messages, and the limits under which they are read.

    `max_transcript_bytes` bounds one conversation as it stands in the file, and so what a parser
    ever has to hold in memory at once.
    """

    name: str
    stream: BinaryIO
    max_file_bytes: int = MAX_FILE_BYTES
    max_transcript_bytes: int = MAX_TRANSCRIPT_BYTES

    def chunks(self) -> Iterator[str]:
        """Yield the whole text in pieces, without a byte order mark.

        Raises:
            TranscriptUnreadable: naming line and byte offset, at the first byte that is not UTF-8 or is NUL.
            TranscriptTruncated: when the file ends inside a character; all the text before it was yielded.
            TranscriptTooLarge: when the stream holds more than `max_file_bytes` after all.
            TranscriptEmpty: when there is nothing but white space.
        """
        decoder = codecs.getincrementaldecoder("utf-8")()
        offset, line, blank, started = 0, 1, True, False
        while True:
            data = self._read()
            pending = len(decoder.getstate()[0])
            try:
                text = decoder.decode(data, final=not data)
            except UnicodeDecodeError as exc:
                line += exc.object.count(b"\n", 0, exc.start)
                at = offset - pending + exc.start
                if not data:  # what is left is the beginning of a character
                    raise self._cut_off(at, line) from exc
                is_gzip = not offset and data.startswith(_GZIP)
                reason = "is not UTF-8" + (" (the file is compressed with gzip: unpack it)" if is_gzip else "")
                raise self._not_text(at, line, reason) from exc
            if (nul := data.find(b"\0")) >= 0:
                line += data.count(b"\n", 0, nul)
                raise self._not_text(offset + nul, line, "is NUL, which text may not hold (is it UTF-16?)")
            offset += len(data)
            line += data.count(b"\n")
            if offset > self.max_file_bytes:
                raise too_large(self.name, size_bytes=offset, limit_bytes=self.max_file_bytes, limit="max_file_bytes")
            if text and not started:
                started, text = True, text.removeprefix("\ufeff")
            blank = blank and not text.strip()
            if text:
                yield text
            if not data:
                break
        if blank:
            raise TranscriptEmpty(f"{self.name} is empty ({offset} bytes, no text)", field=self.name)

    def lines(self) -> Iterator[Line]:
        """Yield every line, however the chunks fall.

        Raises:
            TranscriptRefused: what `chunks` raises.
        """
        number, parts, held = 1, list[str](), 0

        def line(piece: str = "") -> Line:
            too_long = held + len(piece) > self.max_transcript_bytes
            text = "" if too_long else "".join((*parts, piece)).removesuffix("\r")
            return Line(number=number, text=text, is_too_long=too_long)

        for chunk in self.chunks():
            *whole, rest = chunk.split("\n")
            for piece in whole:
                yield line(piece)
                number, held = number + 1, 0
                parts.clear()
            parts.append(rest)
            held += len(rest)
            if held > self.max_transcript_bytes:
                parts.clear()
        if held:
            yield line()

    def where(self, line: int) -> str:
        """Return ``name:line``, the `field` of errors that a line is to blame for."""
        return f"{self.name}:{line}"

    def transcript_too_large(self, *, line: int, which: str = "") -> TranscriptTooLarge:
        """Return the refusal of a conversation that passes `max_transcript_bytes`; `which` one of those on its line."""
        return TranscriptTooLarge(
            f"{self.name}, line {line}: {which and f'{which}: '}one conversation is larger than the limit of "
            f"{self.max_transcript_bytes} bytes (max_transcript_bytes)",
            field=self.where(line),
        )

    def _read(self) -> bytes:
        try:
            return self.stream.read(_CHUNK_BYTES)
        except OSError as exc:
            raise TranscriptUnreadable(
                f"{self.name} cannot be read: {exc.strerror or type(exc).__name__}", field=self.name
            ) from exc

    def _cut_off(self, offset: int, line: int) -> TranscriptTruncated:
        return TranscriptTruncated(
            f"{self.name}, line {line}: the file ends inside the character at offset {offset}",
            field=self.where(line),
            byte_offset=offset,
        )

    def _not_text(self, offset: int, line: int, reason: str) -> TranscriptUnreadable:
        return TranscriptUnreadable(
            f"{self.name}, line {line}: the byte at offset {offset} {reason}",
            field=self.where(line),
            byte_offset=offset,
        )


def too_large(name: str, *, size_bytes: int, limit_bytes: int, limit: str) -> TranscriptTooLarge:
    """Return the refusal of a file of `size_bytes`."""
    return TranscriptTooLarge(
        f"{name} has {size_bytes} bytes or more; the limit is {limit_bytes} ({limit})",
        field=name,
    )


@contextmanager
def open_file(path: Path, *, limits: Limits) -> Iterator[tuple[str, BinaryIO]]:
    """Open `path` for reading; return its printable name and its bytes.

    Raises:
        TranscriptNotFound: when there is no such file.
        TranscriptUnreadable: when it is a symbolic link, not a regular file, or may not be read.
        TranscriptTooLarge: when its size is over the limit; nothing is read then.
    """
    name = os.fsencode(path).decode(errors="backslashreplace")
    try:
        # O_NONBLOCK: opening a FIFO that nobody writes to must not hang before it can be refused.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        raise _cannot_open(name, exc) from exc
    with os.fdopen(descriptor, "rb") as stream:
        found = os.fstat(stream.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise TranscriptUnreadable(f"{name} is not a regular file", field=name)
        if found.st_size > limits.max_file_bytes:
            raise too_large(name, size_bytes=found.st_size, limit_bytes=limits.max_file_bytes, limit="max_file_bytes")
        yield name, stream


@contextmanager
def open_source(
    path: Path, *, max_file_bytes: int = MAX_FILE_BYTES, max_transcript_bytes: int = MAX_TRANSCRIPT_BYTES
) -> Iterator[Source]:
    """Open `path` for one reading as text. Raises what `open_file` does."""
    limits = Limits(max_file_bytes=max_file_bytes, max_transcript_bytes=max_transcript_bytes)
    with open_file(path, limits=limits) as (name, stream):
        yield Source(name=name, stream=stream, **vars(limits))


def _cannot_open(name: str, exc: OSError) -> TranscriptNotFound | TranscriptUnreadable:
    if exc.errno in {errno.ENOENT, errno.ENOTDIR}:
        return TranscriptNotFound(f"there is no file {name}", field=name)
    if exc.errno == errno.ELOOP:
        return TranscriptUnreadable(f"{name} is a symbolic link; name the file it points to", field=name)
    return TranscriptUnreadable(f"{name} cannot be opened: {exc.strerror}", field=name)
