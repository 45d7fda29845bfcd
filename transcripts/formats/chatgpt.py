"""The export of ChatGPT: ``conversations.json`` (or ``conversations-000.json`` …), in the zip or taken out of it.

A conversation is a tree: `mapping` holds its nodes, each with a `parent`, and `current_node` the last one shown. The
conversation is the path from there to the root, reversed; edited prompts and regenerated answers beside it are left
out. Nodes without a message, hidden ones, those of weight 0, calls of tools and their results, reasoning and
images are left out as well. Times may be null anywhere.

The user's custom instructions (``user_editable_context``) stand in every conversation. They are what the user says
of themselves: each distinct text is one account of its own, apart from the conversations.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

from kit.canonical import sha256_json
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

_TALKERS = frozenset({"user", "assistant"})
_REASONING = frozenset({"thoughts", "reasoning_recap"})
_SPOKEN_PARTS = frozenset({"audio_transcription", "text"})
_INSTRUCTIONS = "user_editable_context"
_QUOTED = re.compile(r"```(.{1,100000}?)```", re.DOTALL)


class ChatGPT(TranscriptFormat):
    """What `Settings → Data controls → Export data` sends."""

    name = "chatgpt"
    default_user_speakers = frozenset({"user"})
    speakers = _TALKERS
    holds_pasted = True
    repeats_messages = True
    file_suffixes = (".json",)

    def conversations(self, source: Source) -> Iterator[Conversation]:
        """Yield one conversation for each element of the array, and before it an account that is new in it."""
        accounts: set[str] = set()
        for record in JsonReader(source).records():
            if record.beginning:
                yield passed_over(record, source, title="title")
                continue
            place = Place(source.name, record.line) / record.index
            tree = _Tree(require_dict(record.value, place), place)
            conversation = tree.read()
            for text in tree.instructions:
                if (digest := sha256_json(text)) not in accounts:
                    accounts.add(digest)
                    message = Message(speaker="user", text=text)
                    yield replace(
                        conversation, messages=(message,), title="Custom instructions", dropped={}, is_account=True
                    )
            yield conversation


class _Tree:
    """One conversation as it stands in the file."""

    def __init__(self, value: dict[str, Any], place: Place) -> None:
        self._value = value
        self._place = place
        self._dropped: Counter[Reason] = Counter()
        self._nodes = require_dict(value.get("mapping"), place / "mapping")
        self.instructions: list[str] = []

    def read(self) -> Conversation:
        """Walk the path and keep what was said on it."""
        messages: list[Message] = []
        for key in self._path():
            here = self._place / "mapping" / key / "message"
            value = self._nodes[key].get("message")
            if value is not None:
                found = self._message(require_dict(value, here), here)
                if isinstance(found, Message):
                    messages.append(found)
                elif found is not None:
                    self._dropped[found] += 1
        if messages and all(message.time is None for message in messages):
            messages[0] = replace(messages[0], time=self._started())
        return Conversation(
            source=self._place.source,
            line=self._place.line,
            messages=tuple(messages),
            title=optional_title(self._value.get("title")),
            dropped=self._dropped,
        )

    def _path(self) -> list[str]:
        parents: dict[str, str | None] = {}
        inner: set[str] = set()
        for key, node in self._nodes.items():
            here = self._place / "mapping" / key
            parent = require_dict(node, here).get("parent")
            parents[key] = None if parent is None else require_text(parent, here / "parent")
            inner.add(parents[key] or "")
        leaf = self._value.get("current_node")
        if not isinstance(leaf, str) or leaf not in parents:
            leaf = next((key for key in reversed(parents) if key not in inner), None)
        if leaf is None and not parents:
            return []
        path = path_to(leaf, parents) if leaf is not None else None
        if path is None:
            raise (self._place / "mapping").refuse("holds nodes that are one another's parents in a circle")
        on_path = set(path)
        self._dropped[Reason.BRANCH] += sum(
            1 for key, node in self._nodes.items() if key not in on_path and _is_said(node.get("message"))
        )
        return path

    def _message(self, value: dict[str, Any], here: Place) -> Message | Reason | None:
        author = require_dict(value.get("author"), here / "author")
        role = require_text(author.get("role"), here / "author" / "role")
        content = require_dict(value.get("content") or {}, here / "content")
        kind = content.get("content_type")
        metadata = require_dict(value.get("metadata") or {}, here / "metadata")
        if kind == _INSTRUCTIONS:
            self._keep_instructions(content, metadata, here)
            return None
        if (reason := _left_out(value, role, kind, metadata)) is not None:
            return reason
        text = self._text(content, here / "content")
        self._dropped[Reason.ATTACHMENT] += len(require_list(metadata.get("attachments") or [], here / "metadata"))
        if not text:
            return None if role == "assistant" else Reason.EMPTY
        return Message(speaker=role, text=text, time=optional_time(value.get("create_time"), here / "create_time"))

    def _text(self, content: dict[str, Any], here: Place) -> str:
        texts: list[str] = []
        for index, part in enumerate(require_list(content.get("parts") or [], here / "parts")):
            place = here / "parts" / index
            if isinstance(part, dict):
                if part.get("content_type") in _SPOKEN_PARTS and isinstance(part.get("text"), str):
                    texts.append(require_text(part["text"], place / "text"))
                else:
                    self._dropped[Reason.MEDIA] += 1
            elif part is not None:
                texts.append(require_text(part, place))
        return "\n".join(text for text in texts if text)

    def _keep_instructions(self, content: dict[str, Any], metadata: dict[str, Any], here: Place) -> None:
        """Keep the user's own words; the fields of `content` wrap them in words of the program's."""
        raw = metadata.get("user_context_message_data")
        own = raw if isinstance(raw, dict) else {}
        pairs = (("about_user_message", "user_profile"), ("about_model_message", "user_instructions"))
        texts: list[str] = []
        for plain, wrapped in pairs:
            if own.get(plain):
                texts.append(require_text(own[plain], here / "metadata" / "user_context_message_data" / plain))
            elif content.get(wrapped):
                text = require_text(content[wrapped], here / "content" / wrapped)
                quoted = _QUOTED.search(text)
                texts.append(quoted[1].strip() if quoted else text)
        if said := "\n".join(text for text in texts if text):
            self.instructions.append(said)

    def _started(self) -> datetime | None:
        for key in ("create_time", "update_time"):
            if (found := optional_time(self._value.get(key), self._place / key)) is not None:
                return found
        return None


def _left_out(value: dict[str, Any], role: str, kind: Any, metadata: dict[str, Any]) -> Reason | None:
    """Return why a message is no turn; None when it is one."""
    if kind in _REASONING:
        return Reason.THINKING
    if role == "system":
        return Reason.SYSTEM
    if role not in _TALKERS or value.get("recipient") not in {None, "all"} or kind not in {"text", "multimodal_text"}:
        return Reason.TOOL
    hidden = metadata.get("is_visually_hidden_from_conversation") or metadata.get("is_user_system_message")
    return Reason.HIDDEN if hidden or value.get("weight") == 0 else None


def _is_said(message: Any) -> bool:
    """Whether a node beside the path holds words of the user or the assistant."""
    if not isinstance(message, dict) or not isinstance(message.get("content"), dict):
        return False
    author = message.get("author")
    return isinstance(author, dict) and author.get("role") in _TALKERS and bool(message["content"].get("parts"))
