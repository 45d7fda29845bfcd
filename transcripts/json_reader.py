"""JSON read value by value from a source, without ever holding the whole file.

Three shapes are read alike: one array, one object, or values after one another (JSON Lines, or pretty-printed
objects). Every error names file and line. A value that the end of the file cuts off is
`TranscriptTruncated`; a value that is wrong in itself is `TranscriptUnreadable`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from transcripts.errors import TranscriptEmpty, TranscriptTruncated, TranscriptUnreadable
from transcripts.source import Source

_SPACE = " \t\r\n"
_BEGINNING_CHARACTERS = 4096
_STRUCTURE = re.compile(r'["\[\]{}]')
_IN_STRING = re.compile(r'["\\\x00-\x1f]')
# Longest thing that is wrong only because it is cut off: a pair of \uXXXX escapes, or a literal.
_CUT_MARGIN = 12
_CUT_NUMBERS = frozenset({".", *(f"{e}{sign}" for e in "eE" for sign in ("", "+", "-"))})
_LITERALS = ("true", "false", "null", "NaN", "-Infinity", "Infinity")


@dataclass(frozen=True, kw_only=True)
class Record:
    """One value: its place in the file (`index` from 0, `line` from 1) and its `key` inside an object.

    Of one that is larger than `max_transcript_bytes` there is no value, but its `beginning`: some thousand characters.
    """

    index: int
    line: int
    value: Any
    key: str = ""
    beginning: str = ""


class _TooLarge(Exception):
    """The value at the cursor is larger than one may be."""


class JsonReader:
    """A cursor over the text of a source."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._chunks = source.chunks()
        self._decoder = json.JSONDecoder()
        self._buffer = ""
        self._at = 0
        self._line = 1
        self._ended = False
        self._cut: TranscriptTruncated | None = None

    def records(self, *, on_unfinished: Callable[[], None] | None = None) -> Iterator[Record]:
        """Yield the elements of the one array, or else the values after one another.

        With `on_unfinished`, a last line that somebody is still writing, a value that is cut off with no line end
        after it, is told of and not raised.

        Raises:
            TranscriptTruncated: naming the line on which the unfinished value starts.
            TranscriptUnreadable: naming the line of what is not JSON.
            TranscriptEmpty: when the source is.
        """
        if self._peek() == "[":
            yield from self._array()
            return
        index = 0
        while self._peek():
            try:
                record = self._record(index)
            except TranscriptTruncated:
                if on_unfinished is None or "\n" in self.held_text():
                    raise
                on_unfinished()
                return
            yield record
            index += 1

    def items(self) -> Iterator[Record]:
        """Yield the members of the object at the cursor, each with its key.

        Raises: what `records` raises.
        """
        self._expect("{")
        if self._peek() == "}":
            self._advance(1)
            return
        for index in range(2**63):
            line = self._line
            if (found := self._peek()) != '"':
                raise self._wrong("expected a key in double quotes") if found else self._truncated()
            key = self._record(index).value or ""
            self._expect(":")
            self._peek()
            yield replace(self._record(index, key=key), line=line)
            if self._expect(",}") == "}":
                return

    def end(self) -> None:
        """Require that nothing follows.

        Raises:
            TranscriptUnreadable: when something does.
        """
        if self._peek():
            raise self._wrong("there is more after the end of the JSON value")

    def first_character(self) -> str:
        """Return the first character that is not white space, without reading past it.

        Raises:
            TranscriptEmpty: when there is none.
        """
        return self._peek()

    def held_text(self) -> str:
        """Return what has been read from the source and not been consumed."""
        return self._buffer[self._at :]

    def _array(self) -> Iterator[Record]:
        self._expect("[")
        if self._peek() == "]":
            raise TranscriptEmpty(f"{self._source.name} holds an empty array", field=self._source.name)
        for index in range(2**63):
            self._peek()
            yield self._record(index)
            if self._expect(",]") == "]":
                break
        self.end()

    def _record(self, index: int, *, key: str = "") -> Record:
        """Return the value at the cursor, or what there is of one that is too large, and go on behind it."""
        line = self._line
        try:
            return Record(index=index, line=line, key=key, value=self._value())
        except _TooLarge:
            return Record(index=index, line=line, key=key, value=None, beginning=self._pass_over())

    def _value(self) -> Any:
        """Decode one value at the cursor, reading on (by doubling) while it seems cut off."""
        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer, self._at)
            except json.JSONDecodeError as exc:
                if not self._may_be_cut(exc):
                    raise self._wrong(exc.msg, at=exc.pos) from exc
                back = len(self._buffer) - exc.pos
                if not self._more():
                    raise self._ended_by(exc, at=len(self._buffer) - back) from exc
            except RecursionError as exc:
                raise self._wrong("values are nested too deeply") from exc
            except ValueError as exc:  # an integer of thousands of digits
                raise self._wrong("a number has too many digits") from exc
            else:
                length = end - self._at
                # A number at the very end of the buffer may go on in the next chunk.
                if end == len(self._buffer) and self._buffer[end - 1] not in '}]"' and self._more():
                    continue
                if length > self._source.max_transcript_bytes:
                    raise _TooLarge
                self._advance(length)
                return value

    def _pass_over(self) -> str:
        """Go behind the value at the cursor and return its beginning; it is read in pieces, of which one is held.

        Only where it ends is looked for, not whether it is right in itself.
        """
        start, beginning = self._line, self._buffer[self._at : self._at + _BEGINNING_CHARACTERS]
        if beginning[0] not in '"[{':
            raise self._source.transcript_too_large(line=start)
        depth, in_string, at = 0, False, self._at
        while True:
            found = (_IN_STRING if in_string else _STRUCTURE).search(self._buffer, at)
            if found is None:
                at = max(at - len(self._buffer), 0)  # what is escaped may be the next piece's first character
                self._advance(len(self._buffer) - self._at)
                if not self._more():
                    raise self._truncated(line=start)
                continue
            at = found.end()
            if in_string and found[0] == "\\":
                at += 1
            elif in_string and found[0] != '"':
                raise self._wrong("Invalid control character", at=found.start())
            elif found[0] == '"':
                in_string = not in_string
            else:
                depth += 1 if found[0] in "[{" else -1
            if not depth and not in_string:
                self._advance(at - self._at)
                return beginning

    def _may_be_cut(self, exc: json.JSONDecodeError) -> bool:
        """Whether more text could cure the error."""
        return exc.msg.startswith("Unterminated string") or exc.pos >= len(self._buffer) - _CUT_MARGIN

    def _ended_by(self, exc: json.JSONDecodeError, *, at: int) -> TranscriptTruncated | TranscriptUnreadable:
        """Tell a value that the end of the file cut off from one that is wrong close to the end."""
        rest = self._buffer[at:].rstrip(_SPACE)
        in_string = exc.msg.startswith("Unterminated string") or ("escape" in exc.msg and '"' not in rest)
        in_number = rest in _CUT_NUMBERS and self._buffer[at - 1 : at].isdigit()
        if in_string or in_number or any(literal.startswith(rest) for literal in _LITERALS):
            return self._truncated()
        return self._wrong(exc.msg, at=at)

    def _more(self) -> bool:
        """Drop what was consumed and about double what is held; False at the end of the source."""
        held = len(self._buffer) - self._at
        if held > self._source.max_transcript_bytes:
            raise _TooLarge
        parts, wanted = [self._buffer[self._at :]], max(held, 1)
        while wanted > 0 and not self._ended:
            try:
                chunk = next(self._chunks, None)
            except TranscriptTruncated as exc:  # raised when what stands before it has been used up
                self._cut, chunk = exc, None
            if chunk is None:
                self._ended = True
            else:
                parts.append(chunk)
                wanted -= len(chunk)
        self._buffer, self._at = "".join(parts), 0
        if len(self._buffer) == held and self._cut is not None:
            raise self._cut
        return len(self._buffer) > held

    def _peek(self) -> str:
        """Skip white space; return the character at the cursor, or nothing at the end."""
        while True:
            at = self._at
            while at < len(self._buffer) and self._buffer[at] in _SPACE:
                at += 1
            self._advance(at - self._at)
            if at < len(self._buffer):
                return self._buffer[at]
            if not self._more():
                return ""

    def _expect(self, characters: str) -> str:
        found = self._peek()
        if not found:
            raise self._truncated()
        if found not in characters:
            raise self._wrong("expected " + " or ".join(characters))
        self._advance(1)
        return found

    def _advance(self, count: int) -> None:
        self._line += self._buffer.count("\n", self._at, self._at + count)
        self._at += count

    def _wrong(self, reason: str, *, at: int | None = None) -> TranscriptUnreadable:
        start = self._line
        line = start + (self._buffer.count("\n", self._at, at) if at is not None else 0)
        of = f" (in the value that starts on line {start})" if line != start else ""
        return TranscriptUnreadable(
            f"{self._source.name}, line {line}: not valid JSON{of}: {reason}", field=self._source.where(line)
        )

    def _truncated(self, *, line: int | None = None) -> TranscriptTruncated:
        line = line or self._line
        return TranscriptTruncated(
            f"{self._source.name}, line {line}: the file ends before the JSON that starts here does",
            field=self._source.where(line),
        )
