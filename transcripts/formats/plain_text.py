"""Plain text with speaker prefixes: ``Name: what they said``.

A line that starts at the margin with a name, a colon and white space (or nothing more) begins a turn;
every other line, and every indented one, continues the turn before it. A name is one word, or up to
four of which the first and the last do not begin in lower case ("Maria del Carmen", not "and she said"). Blank lines
inside a turn are kept, around it dropped. A line of three or more ``-`` or ``=`` alone begins a
new conversation. The importer is told which name is the user's. A carriage return alone ends a line too, as it did on
old Macs; errors then name the one line that the file has for everybody else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from transcripts.conversation import Conversation, Message
from transcripts.errors import TranscriptTooLarge, TranscriptUnreadable
from transcripts.formats.base import TranscriptFormat
from transcripts.source import Line, Source

_PREFIX = re.compile(r"(?P<name>[^\s:]{1,40}(?: [^\s:]{1,40}){0,3}):(?:[ \t]+(?P<text>.*))?")
SEPARATOR = re.compile(r"-{3,}|={3,}")


def speaker_prefix(line: str) -> tuple[str, str] | None:
    """Return the speaker and the rest of a line that begins a turn; None for any other line."""
    found = _PREFIX.fullmatch(line)
    if found is None:
        return None
    words = found["name"].split(" ")
    if len(words) > 1 and (words[0][0].islower() or words[-1][0].islower()):
        return None
    return found["name"], found["text"] or ""


class PlainText(TranscriptFormat):
    """Chat logs and interviews as people type them."""

    name = "plain-text"

    def conversations(self, source: Source) -> Iterator[Conversation]:
        """Yield the conversations between separators."""
        open_conversation = _Open(source)
        pieces = ((line, piece.rstrip()) for line in source.lines() for piece in line.text.split("\r"))
        for line, text in pieces:
            if line.is_too_long:
                open_conversation.pass_over(line)
            elif SEPARATOR.fullmatch(text):
                yield from open_conversation.close()
                open_conversation = _Open(source)
            elif prefix := speaker_prefix(text):
                open_conversation.begin_turn(line, *prefix)
            elif text or open_conversation.started:
                open_conversation.continue_turn(line, text)
        yield from open_conversation.close()


class _Open:
    """The conversation that is being read."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._turns: list[tuple[str, list[str]]] = []
        self._line = 0
        self._size = 0
        self._too_large: TranscriptTooLarge | None = None

    @property
    def started(self) -> bool:
        return bool(self._turns) or self._too_large is not None

    def pass_over(self, line: Line) -> None:
        """Let go of what was said: the conversation is larger than the limit."""
        self._line = self._line or line.number
        self._too_large = self._source.transcript_too_large(line=self._line)
        self._turns.clear()

    def begin_turn(self, line: Line, name: str, text: str) -> None:
        if self._too_large is not None:
            return
        self._line = self._line or line.number
        self._turns.append((name, []))
        self.continue_turn(line, text)

    def continue_turn(self, line: Line, text: str) -> None:
        if self._too_large is not None:
            return
        if not self._turns:
            raise TranscriptUnreadable(
                f"{self._source.name}, line {line.number}: text before the first speaker; "
                "a turn begins with 'Name: ' at the start of a line",
                field=self._source.where(line.number),
            )
        self._size += len(text) + 1
        if self._size > self._source.max_transcript_bytes:
            self.pass_over(line)
            return
        self._turns[-1][1].append(text)

    def close(self) -> Iterator[Conversation]:
        """Yield the conversation, unless nobody spoke."""
        if self._too_large is not None:
            yield Conversation(source=self._source.name, line=self._line, messages=(), too_large=self._too_large)
        spoken = [(name, "\n".join(lines).strip()) for name, lines in self._turns]
        messages = tuple(Message(speaker=name, text=text) for name, text in spoken if text)
        if messages:
            yield Conversation(source=self._source.name, line=self._line, messages=messages)
