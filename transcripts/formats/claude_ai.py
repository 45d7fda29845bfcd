"""The export of Claude.ai: ``conversations.json``, one array of conversations, inside the zip or taken out of it.

Each has ``chat_messages`` with a `sender` (``human`` or ``assistant``), a list of `content` blocks and a `text` that
is the same in one string. In some exports only one of the two is filled, and where both are, `text` holds
notes in place of blocks that it cannot show: the blocks count, where they have text. What was attached comes with
the text that was taken from it; that is not what the user said. Where messages name their parents, the path to the
last one is the conversation, and edited or retried messages beside it are left out.
"""

from __future__ import annotations

from collections import Counter
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
from transcripts.formats.base import TranscriptFormat
from transcripts.formats.records import passed_over
from transcripts.json_reader import JsonReader
from transcripts.source import Source
from transcripts.tally import Reason
from transcripts.thread import path_to

_BLOCKS = {
    "thinking": Reason.THINKING,
    "redacted_thinking": Reason.THINKING,
    "tool_use": Reason.TOOL,
    "tool_result": Reason.TOOL,
    "image": Reason.MEDIA,
}


class ClaudeAI(TranscriptFormat):
    """What `Settings → Privacy → Export data` sends."""

    name = "claude-ai"
    default_user_speakers = frozenset({"human"})
    speakers = frozenset({"human", "assistant"})
    holds_pasted = True
    repeats_messages = True
    file_suffixes = (".json",)

    def conversations(self, source: Source) -> Iterator[Conversation]:
        """Yield one conversation for each element of the array."""
        for record in JsonReader(source).records():
            if record.beginning:
                yield passed_over(record, source, title="name")
                continue
            place = Place(source.name, record.line) / record.index
            value = require_dict(record.value, place)
            dropped: Counter[Reason] = Counter()
            messages = _messages(value, place, dropped)
            yield Conversation(
                source=source.name,
                line=record.line,
                messages=tuple(messages),
                title=optional_title(value.get("name")),
                dropped=dropped,
            )


def _messages(value: dict[str, Any], place: Place, dropped: Counter[Reason]) -> Iterator[Message]:
    here = place / "chat_messages"
    given = require_list(value.get("chat_messages"), here)
    for index in _shown(given, value.get("current_leaf_message_uuid"), here, dropped):
        message = require_dict(given[index], here / index)
        sender = require_text(message.get("sender"), here / index / "sender")
        before = dropped.total()
        text = _text(message, here / index, dropped)
        if text:
            time = optional_time(message.get("created_at"), here / index / "created_at")
            yield Message(speaker=sender, text=text, time=time)
        elif dropped.total() == before:
            dropped[Reason.EMPTY] += 1


def _shown(given: list[Any], leaf: Any, here: Place, dropped: Counter[Reason]) -> list[int]:
    """Return the indices of the messages on the path to the last one; all where no message names its parent."""
    parents: dict[str, str | None] = {}
    places: dict[str, int] = {}
    for index, one in enumerate(given):
        message = require_dict(one, here / index)
        if isinstance(uuid := message.get("uuid"), str):
            parent = message.get("parent_message_uuid")
            parents[uuid] = parent if isinstance(parent, str) else None
            places[uuid] = index
    if len(parents) < len(given) or not any(parent in parents for parent in parents.values()):
        return list(range(len(given)))
    last = leaf if isinstance(leaf, str) and leaf in parents else next(reversed(parents))
    path = path_to(last, parents)
    if path is None:
        raise here.refuse("point to one another as parents in a circle")
    dropped[Reason.BRANCH] += len(given) - len(path)
    return [places[uuid] for uuid in path]


def _text(message: dict[str, Any], place: Place, dropped: Counter[Reason]) -> str:
    """Return what the blocks say, or what `text` says where they say nothing."""
    texts: list[str] = []
    for index, one in enumerate(require_list(message.get("content") or [], place / "content")):
        here = place / "content" / index
        block = require_dict(one, here)
        if block.get("type") == "text":
            texts.append(require_text(block.get("text") or "", here / "text"))
        else:
            dropped[_BLOCKS.get(str(block.get("type")), Reason.MEDIA)] += 1
    for key in ("attachments", "files", "files_v2"):
        dropped[Reason.ATTACHMENT] += len(require_list(message.get(key) or [], place / key))
    said = "\n".join(text for text in texts if text)
    has_blocks = bool(message.get("content"))
    return said if said or has_blocks else require_text(message.get("text") or "", place / "text")
