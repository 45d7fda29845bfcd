"""Files in, transcripts out: one file, a directory of them, or the installed chitchat data set.

Nothing is kept here. Reading is lazy: one conversation is in memory at a time, and an error rises where
it is met, after the transcripts before it were yielded. `TranscriptStore.add` keeps all of them or none.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from transcripts.conversation import Conversation, Message
from transcripts.detect import detect
from transcripts.errors import NoUserTurn, TranscriptEmpty, TranscriptUnreadable, UnknownSpeaker
from transcripts.formats import FORMATS, TranscriptFormat, require_format
from transcripts.formats.chitchat import dataset_path
from transcripts.source import MAX_FILE_BYTES, MAX_TRANSCRIPT_BYTES, open_source
from transcripts.transcript import Transcript, Turn

CHITCHAT = "chitchat"
_SPEAKERS_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class Speaker:
    """One speaker in the input, by the source's own name. `is_user` is true where the format itself tells."""

    name: str
    turns: int
    is_user: bool


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A conversation that was left out because the user says nothing in it."""

    source: str
    line: int


def read_transcripts(
    path: Path | str,
    *,
    format: str | None = None,
    user_speaker: str | None = None,
    max_file_bytes: int = MAX_FILE_BYTES,
    max_transcript_bytes: int = MAX_TRANSCRIPT_BYTES,
    on_skipped: Callable[[Skipped], None] | None = None,
) -> Iterator[Transcript]:
    """Yield one transcript for each conversation in which the user says something.

    Args:
        path: a file; a directory, whose files are read in the order of their paths, hidden ones left out; or the
            word ``chitchat``.
        format: a name in `FORMATS`; detected for each file when omitted.
        user_speaker: the user's name in the source. May be omitted where the format tells who the user is.
        max_file_bytes: a larger file is refused before it is read.
        max_transcript_bytes: bounds one conversation as it stands in its file.
        on_skipped: told of every conversation without a turn of the user's.

    Raises:
        UnknownFormat: at once, when `format` is none.
        TranscriptNotFound: when there is no such file.
        UnknownSpeaker: listing the speakers, when it is not told who is the user, or a file has nobody of that name.
        NoUserTurn: when a file has conversations but none with a turn of the user's.
        TranscriptRefused: every other fault of the input, naming file, line and reason.
    """
    wanted = require_format(format) if format is not None else None

    def read() -> Iterator[Transcript]:
        for file in _files(path):
            opened = open_source(file, max_file_bytes=max_file_bytes, max_transcript_bytes=max_transcript_bytes)
            found = wanted or _format_of(path, file, max_file_bytes=max_file_bytes)
            with opened as source:
                yield from _File(source.name, found, user_speaker, on_skipped).transcripts(found.conversations(source))

    return read()


def detect_format(path: Path | str, *, max_file_bytes: int = MAX_FILE_BYTES) -> str:
    """Return the name of the format of a file, of a directory's first file, or of the chitchat data set.

    Raises:
        UnknownFormat: when it is none of ours.
        TranscriptRefused: when the file cannot be read far enough to tell.
    """
    return _format_of(path, next(_files(path)), max_file_bytes=max_file_bytes).name


def list_speakers(
    path: Path | str, format: str | None = None, *, max_file_bytes: int = MAX_FILE_BYTES
) -> list[Speaker]:
    """Return everybody who speaks in the input, the most turns first, then by name.

    Raises:
        TranscriptRefused: what `read_transcripts` raises for input that cannot be read.
    """
    turns: Counter[str] = Counter()
    users: set[str] = set()
    for file in _files(path):
        found = require_format(format) if format else _format_of(path, file, max_file_bytes=max_file_bytes)
        users |= found.default_user_speakers
        with open_source(file, max_file_bytes=max_file_bytes) as source:
            for conversation in found.conversations(source):
                turns.update(message.speaker for message in _turns_of(conversation, found))
    ordered = sorted(turns.items(), key=lambda item: (-item[1], item[0]))
    return [Speaker(name=name, turns=count, is_user=name in users) for name, count in ordered]


class _File:
    """Turns one file's conversations into transcripts, and says so when none has a user."""

    def __init__(
        self,
        name: str,
        format: TranscriptFormat,
        user_speaker: str | None,
        on_skipped: Callable[[Skipped], None] | None,
    ) -> None:
        self._name = name
        self._format = format
        self._users = frozenset({user_speaker}) if user_speaker is not None else format.default_user_speakers
        self._told = user_speaker is not None
        self._on_skipped = on_skipped
        self._speakers: Counter[str] = Counter()
        self._found_user = False

    def transcripts(self, conversations: Iterable[Conversation]) -> Iterator[Transcript]:
        for conversation in conversations:
            messages = _turns_of(conversation, self._format)
            if not self._found_user:
                self._speakers.update(message.speaker for message in messages)
            if any(message.speaker in self._users for message in messages):
                self._found_user = True
                yield self._transcript(conversation, messages)
            elif self._on_skipped is not None:
                self._on_skipped(Skipped(source=conversation.source, line=conversation.line))
        if not self._found_user:
            raise self._no_user()

    def _transcript(self, conversation: Conversation, messages: list[Message]) -> Transcript:
        turns = tuple(
            Turn(role="user" if message.speaker in self._users else "other", text=message.text, time=message.time)
            for message in messages
        )
        return Transcript(turns=turns, source_format=self._format.name, title=conversation.title)

    def _no_user(self) -> NoUserTurn | UnknownSpeaker:
        if not self._speakers:
            return NoUserTurn(f"{self._name}: nobody says anything in it", field=self._name)
        found = f"the speakers are {_name_speakers(self._speakers)}"
        if self._told:
            (wanted,) = self._users
            return UnknownSpeaker(
                f"{self._name}: nobody is called {wanted!r}; {found}: choose the user with --user-speaker",
                field="user_speaker",
            )
        if not self._users:
            return UnknownSpeaker(
                f"{self._name} does not tell who the user is; {found}: choose one with --user-speaker",
                field="user_speaker",
            )
        return NoUserTurn(
            f"{self._name}: no turn is the user's ({' or '.join(sorted(self._users))}); {found}: "
            "if one of them is the user, say so with --user-speaker",
            field=self._name,
        )


def _turns_of(conversation: Conversation, format: TranscriptFormat) -> list[Message]:
    """Join consecutive messages of one speaker, where the format asks for it, under the first one's time."""
    if not format.merges_speakers:
        return list(conversation.messages)
    groups: list[list[Message]] = []
    for message in conversation.messages:
        if groups and groups[-1][0].speaker == message.speaker:
            groups[-1].append(message)
        else:
            groups.append([message])
    return [
        Message(speaker=group[0].speaker, time=group[0].time, text="\n".join(message.text for message in group))
        for group in groups
    ]


def _name_speakers(speakers: Counter[str]) -> str:
    ordered = sorted(speakers.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(f"{name} ({turns} turns)" for name, turns in ordered[:_SPEAKERS_SHOWN])
    more = len(ordered) - _SPEAKERS_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _format_of(path: Path | str, file: Path, *, max_file_bytes: int) -> TranscriptFormat:
    if str(path) == CHITCHAT:
        return FORMATS[CHITCHAT]
    with open_source(file, max_file_bytes=max_file_bytes) as source:
        return require_format(detect(source))


def _files(path: Path | str) -> Iterator[Path]:
    """Yield the files that `path` means, in an order that does not depend on the file system.

    Raises:
        TranscriptUnreadable: for a symbolic link or a special file in a directory.
        TranscriptEmpty: for a directory without files.
    """
    if str(path) == CHITCHAT:
        yield dataset_path()
        return
    root = Path(path)
    if root.is_symlink() or not root.is_dir():
        yield root  # opening it says what is wrong with it
        return
    files = sorted(_walk(root))
    if not files:
        raise TranscriptEmpty(f"the directory {root} holds no files", field=str(root))
    yield from files


def _walk(root: Path) -> Iterator[Path]:
    def refuse(exc: OSError) -> None:
        raise TranscriptUnreadable(f"{exc.filename} cannot be read: {exc.strerror}", field=str(exc.filename)) from exc

    for directory, subdirectories, files in os.walk(root, onerror=refuse):
        subdirectories[:] = [name for name in subdirectories if not name.startswith(".")]
        for name in subdirectories:
            if (link := Path(directory, name)).is_symlink():
                raise TranscriptUnreadable(f"{link} is a symbolic link; name what it points to", field=str(link))
        yield from (Path(directory, name) for name in files if not name.startswith("."))
