"""Files in, transcripts out: a file, an archive, a directory of files, or the installed chitchat data set.

Nothing is kept here. Reading is lazy: one conversation is in memory at a time, and an error rises where
it is met, after the transcripts before it were yielded. `TranscriptStore.add` keeps all of them or none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kit.words import counted
from transcripts.cleaner import Cleaner
from transcripts.conversation import Conversation, Message
from transcripts.detect import detect
from transcripts.errors import (
    NoUserTurn,
    TranscriptEmpty,
    TranscriptRefused,
    TranscriptTooLarge,
    UnknownFormat,
    UnknownSpeaker,
)
from transcripts.formats import FORMATS, TranscriptFormat, require_format
from transcripts.inputs import CHITCHAT, Input, inputs
from transcripts.source import MAX_FILE_BYTES, MAX_TRANSCRIPT_BYTES, Limits, open_source
from transcripts.tally import Reason, Tally
from transcripts.transcript import Transcript, Turn

__all__ = ["CHITCHAT", "Skipped", "Speaker", "detect_format", "list_speakers", "read_transcripts"]

_SPEAKERS_SHOWN = 20
_SESSION_LEVELS = 3
# What lies beside transcripts in a directory or an unpacked export and need not be text at all.
_OTHER_SUFFIXES = frozenset(
    {
        *(".png", ".jpg", ".jpeg", ".gif", ".webp", ".heic", ".svg", ".pdf", ".docx", ".xlsx", ".pptx", ".html"),
        *(".css", ".js", ".wav", ".mp3", ".m4a", ".ogg", ".mp4", ".mov", ".webm", ".dat", ".bin", ".gz", ".zst"),
    }
)


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
    keep_pasted: bool = False,
    max_file_bytes: int = MAX_FILE_BYTES,
    max_transcript_bytes: int = MAX_TRANSCRIPT_BYTES,
    on_skipped: Callable[[Skipped], None] | None = None,
    tally: Tally | None = None,
) -> Iterator[Transcript]:
    """Yield one transcript for each conversation in which the user says something.

    Args:
        path: a file; a zip archive with a ``conversations.json``; a directory, whose files are read in the order of
            their paths, hidden ones left out; or the word ``chitchat``.
        format: a name in `FORMATS`; detected for each file when omitted.
        user_speaker: the user's name in the source. May be omitted where the format tells who the user is, and counts
            for nothing in the histories of Claude Code, Claude.ai and ChatGPT, unless it is a name that these use.
        keep_pasted: take code, quotes and logs in messages to an assistant for the user's own words.
        max_file_bytes: a larger file is refused before it is read; a member of an archive by its unpacked size.
        max_transcript_bytes: of one conversation as it stands in its file; a larger one is left out and counted.
        on_skipped: told of every conversation without a turn of the user's.
        tally: counts what is kept and what is left out, and why.

    A file in a directory that is in no known format is left out and counted, unless `format` is given; one that is
    in a known format and broken is refused.

    Raises:
        UnknownFormat: at once, when `format` is none.
        TranscriptNotFound: when there is no such file.
        UnknownSpeaker: listing the speakers, when it is not told who is the user, or a file has nobody of that name.
        TranscriptTooLarge: when a file or an archive is larger than one may be, or when nothing is left beside a
            conversation that is.
        NoUserTurn: when a file has conversations but none with a turn of the user's; of several session files of a
            format that tells who the user is, when none has.
        TranscriptRefused: every other fault of the input, naming file, line and reason.
    """
    wanted = require_format(format) if format is not None else None
    limits = Limits(max_file_bytes=max_file_bytes, max_transcript_bytes=max_transcript_bytes)
    counted = tally if tally is not None else Tally()

    def read() -> Iterator[Transcript]:
        cleaner = Cleaner(counted, keep_pasted=keep_pasted)
        missing: TranscriptRefused | None = None
        for one in inputs(path, limits=limits, on_ignored=lambda _: _count_other(counted)):
            if (found := _format_to_read(one, path, wanted, counted)) is None:
                continue
            file = _File(one.name, found, user_speaker, cleaner, on_skipped)
            with one.open() as source:
                yield from file.transcripts(found.conversations(source))
            if not file.found_user:
                fault = file.no_user()
                missing = missing or fault
                may_lack_one = one.is_one_of_many and user_speaker is None and found.default_user_speakers
                if not may_lack_one and not isinstance(fault, TranscriptTooLarge):
                    raise fault
        if not counted.conversations:
            raise missing or _nothing(path, counted)

    return read()


def _nothing(path: Path | str, tally: Tally) -> TranscriptRefused:
    if not tally.files:
        return UnknownFormat(f"no file in {path} is a transcript", field=str(path))
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(tally.dropped.items()) if count)
    return NoUserTurn(f"{path}: nothing is left of what the user says ({reasons})", field=str(path))


def _format_to_read(
    one: Input, path: Path | str, wanted: TranscriptFormat | None, tally: Tally
) -> TranscriptFormat | None:
    """Return the format of a file; None, and count it, for one in a directory that is no transcript."""
    suffix = Path(one.name).suffix.lower()
    try:
        found = wanted or _format_of(one, path)
    except (UnknownFormat, TranscriptEmpty):
        if not one.is_one_of_many:
            raise
        found = None
    except TranscriptRefused:
        if not (one.is_one_of_many and suffix in _OTHER_SUFFIXES):
            raise
        found = None
    if found is None or (one.is_one_of_many and _lies_beside(one, found, told=wanted is not None)):
        _count_other(tally)
        return None
    tally.files += 1
    tally.formats[found.name] += 1
    return found


def _lies_beside(one: Input, found: TranscriptFormat, *, told: bool) -> bool:
    """Whether a file found in a directory is something else than its beginning looks like.

    Notes and results of tools beside Claude Code's sessions may begin like a conversation in plain text.
    """
    path = Path(one.name)
    if found.file_suffixes:
        return path.suffix.lower() not in found.file_suffixes
    if told or found.name != "plain-text":
        return False
    sessions = (session for above in list(path.parents)[:_SESSION_LEVELS] for session in above.glob("*.jsonl"))
    return (first := next(sessions, None)) is not None and _is_session(first)


def _is_session(path: Path) -> bool:
    try:
        with open_source(path) as source:
            return detect(source) == "claude-code"
    except TranscriptRefused:
        return False


def _count_other(tally: Tally) -> None:
    tally.dropped[Reason.NOT_TRANSCRIPT] += 1


def detect_format(path: Path | str, *, max_file_bytes: int = MAX_FILE_BYTES) -> str:
    """Return the name of the format of a file, of a directory's or archive's first, or of the chitchat data set.

    Raises:
        UnknownFormat: when it is none of ours.
        TranscriptRefused: when the file cannot be read far enough to tell.
    """
    limits = Limits(max_file_bytes=max_file_bytes)
    unknown: UnknownFormat | None = None
    for one in inputs(path, limits=limits, on_ignored=lambda _: None):
        try:
            return _format_of(one, path).name
        except UnknownFormat as exc:
            unknown = unknown or exc
    raise unknown or UnknownFormat


def list_speakers(
    path: Path | str, format: str | None = None, *, max_file_bytes: int = MAX_FILE_BYTES
) -> list[Speaker]:
    """Return everybody who speaks in the input, the most turns first, then by name.

    Raises:
        TranscriptRefused: what `read_transcripts` raises for input that cannot be read.
    """
    turns: Counter[str] = Counter()
    users: set[str] = set()
    wanted = require_format(format) if format else None
    cleaner = Cleaner(Tally(), keep_pasted=True)
    for one in inputs(path, limits=Limits(max_file_bytes=max_file_bytes), on_ignored=lambda _: None):
        if (found := _format_to_read(one, path, wanted, Tally())) is not None:
            users |= found.default_user_speakers
            with one.open() as source:
                for conversation in found.conversations(source):
                    turns.update(message.speaker for message in cleaner.turns(conversation, found, users=frozenset()))
    ordered = sorted(turns.items(), key=lambda item: (-item[1], item[0]))
    return [Speaker(name=name, turns=count, is_user=name in users) for name, count in ordered]


class _File:
    """Turns one file's conversations into transcripts, and says so when none has a user."""

    def __init__(
        self,
        name: str,
        format: TranscriptFormat,
        user_speaker: str | None,
        cleaner: Cleaner,
        on_skipped: Callable[[Skipped], None] | None,
    ) -> None:
        self._name = name
        self._format = format
        if user_speaker is not None and format.speakers and user_speaker not in format.speakers:
            user_speaker = None  # told of other files: nobody can be called that here
        self._users = frozenset({user_speaker}) if user_speaker is not None else format.default_user_speakers
        self._told = user_speaker is not None
        self._cleaner = cleaner
        self._on_skipped = on_skipped
        self._speakers: Counter[str] = Counter()
        self._too_large: TranscriptTooLarge | None = None
        self.found_user = False

    def transcripts(self, conversations: Iterable[Conversation]) -> Iterator[Transcript]:
        for conversation in conversations:
            if conversation.too_large is not None:
                self._leave_out(conversation.too_large)
                continue
            if not self.found_user:
                self._speakers.update(message.speaker for message in conversation.messages)
                self.found_user = any(message.speaker in self._users for message in conversation.messages)
            turns = self._cleaner.turns(conversation, self._format, users=self._users)
            if any(message.speaker in self._users for message in turns):
                self._cleaner.keep(turns, users=self._users)
                yield self._transcript(conversation, turns)
            elif turns or not conversation.messages:
                self._skip(conversation)

    def _leave_out(self, refusal: TranscriptTooLarge) -> None:
        self._cleaner.tally.dropped[Reason.TOO_LARGE] += 1
        self._cleaner.tally.too_large.append(refusal.message)
        self._too_large = self._too_large or refusal

    def _skip(self, conversation: Conversation) -> None:
        self._cleaner.tally.dropped[Reason.NO_USER] += 1
        if self._on_skipped is not None:
            self._on_skipped(Skipped(source=conversation.source, line=conversation.line))

    def _transcript(self, conversation: Conversation, messages: list[Message]) -> Transcript:
        turns = tuple(
            Turn(role="user" if message.speaker in self._users else "other", text=message.text, time=message.time)
            for message in messages
        )
        return Transcript(turns=turns, source_format=self._format.name, title=conversation.title)

    def no_user(self) -> NoUserTurn | UnknownSpeaker | TranscriptTooLarge:
        if not self._speakers:
            if self._too_large is not None:
                return self._too_large
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


def _name_speakers(speakers: Counter[str]) -> str:
    ordered = sorted(speakers.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(f"{name} ({counted(turns, 'turn')})" for name, turns in ordered[:_SPEAKERS_SHOWN])
    more = len(ordered) - _SPEAKERS_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _format_of(one: Input, path: Path | str) -> TranscriptFormat:
    if str(path) == CHITCHAT:
        return FORMATS[CHITCHAT]
    with one.open() as source:
        return require_format(detect(source))
