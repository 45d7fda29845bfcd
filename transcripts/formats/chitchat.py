"""The PyPI package ``chitchat-dataset``: real conversations between people with persistent ids.

The package's one file is a JSON object, conversation id → ``{"messages": [[{"text", "timestamp",
"sender"}, …], …], "prompt": …}``; the inner lists are bursts of one sender. A person is named by
their sender id. Consecutive messages of one sender are one turn. The conversation's prompt, when
it has one, is its title.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
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
from transcripts.errors import TranscriptNotFound
from transcripts.formats.base import TranscriptFormat
from transcripts.formats.records import passed_over
from transcripts.json_reader import JsonReader
from transcripts.source import Source, open_source

_PACKAGE = "chitchat_dataset"


@dataclass(frozen=True, kw_only=True)
class Person:
    """One sender in the data set: how many conversations they spoke in, and how many words."""

    sender_id: str
    conversations: int
    words: int


class Chitchat(TranscriptFormat):
    """The data set's own file."""

    name = "chitchat"
    merges_speakers = True

    def conversations(self, source: Source) -> Iterator[Conversation]:
        """Yield one conversation for each member of the object."""
        reader = JsonReader(source)
        for record in reader.items():
            if record.beginning:
                yield passed_over(record, source, title="prompt")
                continue
            place = Place(source.name, record.line, record.key)
            value = require_dict(record.value, place)
            bursts = require_list(value.get("messages"), place / "messages")
            yield Conversation(
                source=source.name,
                line=record.line,
                messages=tuple(_messages(bursts, place / "messages")),
                title=optional_title(value.get("prompt")),
            )
        reader.end()


def _messages(bursts: list[Any], place: Place) -> Iterator[Message]:
    for i, burst in enumerate(bursts):
        for j, value in enumerate(require_list(burst, place / i)):
            here = place / i / j
            message = require_dict(value, here)
            sender = require_text(message.get("sender"), here / "sender")
            text = require_text(message.get("text"), here / "text")
            if text:
                yield Message(
                    speaker=sender, text=text, time=optional_time(message.get("timestamp"), here / "timestamp")
                )


def dataset_path() -> Path:
    """Return the installed package's data file, without importing the package.

    Raises:
        TranscriptNotFound: saying what to install, when it is not there.
    """
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise TranscriptNotFound("the package chitchat-dataset is not installed: pip install chitchat-dataset==0.9.0")
    return Path(spec.origin).with_name("dataset.json")


def people(*, min_conversations: int = 5, min_words: int = 1000, path: Path | None = None) -> list[Person]:
    """Return who has said enough to be learnt from, the most words first, then by sender id.

    `path` is a copy of the data file; the installed package's when omitted.
    """
    conversations: Counter[str] = Counter()
    words: Counter[str] = Counter()
    with open_source(path or dataset_path()) as source:
        for conversation in Chitchat().conversations(source):
            conversations.update({message.speaker for message in conversation.messages})
            for message in conversation.messages:
                words[message.speaker] += len(message.text.split())
    found = (Person(sender_id=who, conversations=conversations[who], words=words[who]) for who in conversations)
    enough = (p for p in found if p.conversations >= min_conversations and p.words >= min_words)
    return sorted(enough, key=lambda person: (-person.words, person.sender_id))
