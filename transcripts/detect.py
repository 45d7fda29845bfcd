"""Which format a file is in, told from its beginning."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from transcripts.errors import TranscriptTruncated, UnknownFormat
from transcripts.formats import FORMATS
from transcripts.formats.plain_text import SEPARATOR, speaker_prefix
from transcripts.json_reader import JsonReader, Record
from transcripts.source import Source

_MAX_MEMBERS = 64
_LISTS = {"messages": "openai-messages", "conversations": "sharegpt", "chat_messages": "claude-ai"}
# What a line of a Claude Code session may be, and what else it holds then.
_SESSION_LINES = frozenset(
    {
        *("user", "assistant", "system", "summary", "ai-title", "custom-title", "queue-operation", "attachment"),
        *("progress", "pr-link", "agent-setting", "agent-name", "last-prompt", "continued-in", "file-history-snapshot"),
        *("mode", "permission-mode", "bridge-session", "worktree-state", "tag", "saved_hook_context"),
    }
)
_SESSION_KEYS = frozenset({"sessionId", "parentUuid", "leafUuid", "snapshot"})


def detect(source: Source) -> str:
    """Return the name of the source's format, reading as little of it as possible.

    Raises:
        UnknownFormat: when it is none of ours, with the names of those.
        TranscriptTooLarge: when every conversation in it is.
        TranscriptRefused: when it is JSON and broken before its format shows.
    """
    reader = JsonReader(source)
    first = reader.first_character()
    begins_json = first == "{" or (first == "[" and _begins_array(reader.held_text()))
    if begins_json and (found := _detect_json(reader, first, source)) is not None:
        return found
    if first not in "[{" and _starts_with_speaker(reader.held_text()):
        return "plain-text"
    raise UnknownFormat(
        f"{source.name} is in no format that Lorry reads; choose one with --format: {', '.join(FORMATS)}"
        " (plain text begins each turn with `Name: ` at the start of a line)",
        field=source.name,
    )


def _begins_array(text: str) -> bool:
    """Tell an array of records from a line of text in brackets (``[10:32] Ada: hello``)."""
    inside = text[1:].lstrip()
    return not inside or inside[0] in "{]"


def _detect_json(reader: JsonReader, first: str, source: Source) -> str | None:
    """Tell by the first record of an array that is not too large, or by the first telling members of an object."""
    if first == "[":
        record = next((each for each in reader.records() if not each.beginning), None)
        if record is None:
            raise source.transcript_too_large(line=1)
        return _first_telling(record.value.items() if isinstance(record.value, dict) else ())
    # An object may be the whole file, so its members are looked at as they come.
    return _first_telling((record.key, _kind_of(record)) for record in reader.items())


def _kind_of(record: Record) -> Any:
    """Return a member's value, or an empty one of its kind where it is too large to be held."""
    return {"[": [], "{": {}}.get(record.beginning[:1], record.value)


def _first_telling(members: Iterable[tuple[str, Any]]) -> str | None:
    seen: dict[str, Any] = {}
    try:
        for key, value in members:
            seen[key] = value if isinstance(value, str) else None
            if (name := _telling(key, value)) is not None:
                return name
            if seen.get("type") in _SESSION_LINES and not _SESSION_KEYS.isdisjoint(seen):
                return "claude-code"
            if len(seen) > _MAX_MEMBERS:
                break
    except TranscriptTruncated:
        if seen.get("type") in _SESSION_LINES or not _SESSION_KEYS.isdisjoint(seen):
            return "claude-code"  # a session that has just begun: its first line is being written
        raise
    return None


def _telling(key: str, value: Any) -> str | None:
    if key in _LISTS and isinstance(value, list):
        return _LISTS[key]
    if key == "mapping" and isinstance(value, dict):
        return "chatgpt"
    if isinstance(value, dict) and _is_bursts(value.get("messages")):
        return "chitchat"
    return None


def _is_bursts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(burst, list) for burst in value)


def _starts_with_speaker(text: str) -> bool:
    for line in text.splitlines():
        if line.strip() and not SEPARATOR.fullmatch(line.rstrip()):
            return speaker_prefix(line.rstrip()) is not None
    return False
