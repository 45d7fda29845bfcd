"""ShareGPT: objects with ``conversations: [{"from": …, "value": …}]``, as one JSON array or one a line.

The user is ``human`` or ``user``. System prompts and traffic with tools and functions are dropped.
A message may carry a ``timestamp`` and a record a ``title``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from transcripts.conversation import Conversation, Message, Place, optional_time, require_text
from transcripts.formats.base import TranscriptFormat
from transcripts.formats.records import read_records
from transcripts.source import Source
from transcripts.tally import Reason

_TOOLS = frozenset(
    {
        *("tool", "tools", "tool_call", "tool_response", "function", "function_call"),
        *("function_response", "function-call", "observation"),
    }
)


class ShareGPT(TranscriptFormat):
    """The format in which shared assistant conversations are most often passed on."""

    name = "sharegpt"
    default_user_speakers = frozenset({"human", "user"})
    holds_pasted = True

    def conversations(self, source: Source) -> Iterator[Conversation]:
        """Yield one conversation for each record."""
        return read_records(source, key="conversations", read_message=_message)


def _message(message: dict[str, Any], place: Place) -> Message | Reason:
    speaker = require_text(message.get("from"), place / "from")
    content = message.get("value")
    text = "" if content is None else require_text(content, place / "value")
    if speaker == "system":
        return Reason.SYSTEM
    if speaker in _TOOLS:
        return Reason.TOOL
    if not text:
        return Reason.EMPTY
    return Message(speaker=speaker, text=text, time=optional_time(message.get("timestamp"), place / "timestamp"))
