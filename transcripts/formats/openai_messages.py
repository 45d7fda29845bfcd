"""OpenAI ``messages``: a JSON object a line, ``{"messages": [{"role": …, "content": …}]}``.

`content` is a string, null, or a list of parts of which the text ones count. Messages of the roles
system, developer, tool and function are neither the user nor anybody they talk to, and are
dropped. A message may carry a ``timestamp`` and a record a ``title``. One JSON array of such
objects, and pretty-printed objects after one another, are read as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from transcripts.conversation import Conversation, Message, Place, optional_time, require_dict, require_text
from transcripts.formats.base import TranscriptFormat
from transcripts.formats.records import read_records
from transcripts.source import Source
from transcripts.tally import Reason

_TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
_SYSTEM_ROLES = frozenset({"system", "developer"})
_TOOL_ROLES = frozenset({"tool", "function"})


class OpenAIMessages(TranscriptFormat):
    """The format of fine-tuning files and of most chat APIs' logs."""

    name = "openai-messages"
    default_user_speakers = frozenset({"user"})
    holds_pasted = True

    def conversations(self, source: Source) -> Iterator[Conversation]:
        """Yield one conversation for each record."""
        return read_records(source, key="messages", read_message=_message)


def _message(message: dict[str, Any], place: Place) -> Message | Reason:
    role = require_text(message.get("role"), place / "role")
    text = _content(message.get("content"), place / "content")
    if role in _SYSTEM_ROLES:
        return Reason.SYSTEM
    if role in _TOOL_ROLES or (not text and (message.get("tool_calls") or message.get("function_call"))):
        return Reason.TOOL
    if not text:
        return Reason.EMPTY
    return Message(speaker=role, text=text, time=optional_time(message.get("timestamp"), place / "timestamp"))


def _content(value: Any, place: Place) -> str:
    """Return the text of a string, of the text parts of a list, or of null (nothing)."""
    if value is None:
        return ""
    if not isinstance(value, list):
        return require_text(value, place)
    texts: list[str] = []
    for index, part in enumerate(value):
        here = place / index
        if isinstance(part, str):
            texts.append(require_text(part, here))
        elif require_dict(part, here).get("type") in _TEXT_PARTS:
            texts.append(require_text(part.get("text"), here / "text"))
    return "\n".join(text for text in texts if text)
