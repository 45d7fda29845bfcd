"""What the JSON formats share: records that each hold one conversation as a list of messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from transcripts.conversation import Conversation, Message, Place, optional_title, require_dict, require_list
from transcripts.json_reader import JsonReader
from transcripts.source import Source

ReadMessage = Callable[[dict[str, Any], Place], Message | None]


def read_records(source: Source, *, key: str, read_message: ReadMessage) -> Iterator[Conversation]:
    """Yield one conversation for each record, from the list under `key`.

    `read_message` turns one object of that list into a message, or into None when it is nobody's turn.

    Raises:
        TranscriptUnreadable: naming line and path of what is not of the expected type.
    """
    for record in JsonReader(source).records():
        place = Place(source.name, record.line)
        value = require_dict(record.value, place)
        messages = _messages(require_list(value.get(key), place / key), place / key, read_message)
        title = optional_title(value.get("title"))
        yield Conversation(source=source.name, line=record.line, messages=tuple(messages), title=title)


def _messages(values: list[Any], place: Place, read_message: ReadMessage) -> Iterator[Message]:
    for index, value in enumerate(values):
        here = place / index
        message = read_message(require_dict(value, here), here)
        if message is not None:
            yield message
