"""ShareGPT: objects with ``conversations: [{"from": …, "value": …}]``, as one JSON array or one a line.

The user is ``human`` or ``user``. System prompts and traffic with tools and functions are dropped.
A message may carry a ``timestamp`` and a record a ``title``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from transcripts.conversation import (
    Conversation,
    Message,
    Place,
    optional_time,
    optional_title,
    require_dict,
    require_list,
    require_text,
)
from transcripts.json_reader import JsonReader
from transcripts.source import Source

_DROPPED = frozenset(
    {
        *("system", "developer", "tool", "tools", "tool_call", "tool_response", "function", "function_call"),
        *("function_response", "function-call", "observation"),
    }
)


class ShareGPT:
    """The format in which shared assistant conversations are most often passed on."""

    name = "sharegpt"
    default_user_speakers = frozenset({"human", "user"})
    merges_speakers = False

    def conversations(self, source: Source) -> Iterator[Conversation]:
        """Yield one conversation for each record."""
        for record in JsonReader(source).records():
            place = Place(source.name, record.line)
            value = require_dict(record.value, place)
            messages = require_list(value.get("conversations"), place / "conversations")
            yield Conversation(
                source=source.name,
                line=record.line,
                messages=tuple(_messages(messages, place / "conversations")),
                title=optional_title(value.get("title")),
            )


def _messages(values: list[Any], place: Place) -> Iterator[Message]:
    for index, value in enumerate(values):
        here = place / index
        message = require_dict(value, here)
        speaker = require_text(message.get("from"), here / "from")
        content = message.get("value")
        text = "" if content is None else require_text(content, here / "value")
        if speaker not in _DROPPED and text:
            time = optional_time(message.get("timestamp"), here / "timestamp")
            yield Message(speaker=speaker, text=text, time=time)
