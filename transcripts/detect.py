"""Which format a file is in, told from its beginning."""

from __future__ import annotations

from typing import Any

from transcripts.errors import UnknownFormat
from transcripts.formats import FORMATS
from transcripts.formats.plain_text import SEPARATOR, speaker_prefix
from transcripts.json_reader import JsonReader
from transcripts.source import Source


def detect(source: Source) -> str:
    """Return the name of the source's format, reading as little of it as possible.

    Raises:
        UnknownFormat: when it is none of ours, with the names of those.
        TranscriptRefused: when it is JSON and broken before its format shows.
    """
    reader = JsonReader(source)
    first = reader.first_character()
    if first in "[{" and (found := _detect_json(reader, first)) is not None:
        return found
    if first not in "[{" and _starts_with_speaker(reader.held_text()):
        return "plain-text"
    raise UnknownFormat(
        f"{source.name} is in no format that Lorry reads; choose one with --format: {', '.join(FORMATS)}"
        " (plain text begins each turn with `Name: ` at the start of a line)",
        field=source.name,
    )


def _detect_json(reader: JsonReader, first: str) -> str | None:
    """Tell by the first record of an array, or by the first telling member of an object."""
    if first == "[":
        record = next(reader.records(), None)
        members = record.value.items() if record and isinstance(record.value, dict) else ()
        return next((name for key, value in members if (name := _telling(key, value))), None)
    return next((name for record in reader.items() if (name := _telling(record.key, record.value))), None)


def _telling(key: str, value: Any) -> str | None:
    if key == "messages" and isinstance(value, list):
        return "openai-messages"
    if key == "conversations" and isinstance(value, list):
        return "sharegpt"
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
