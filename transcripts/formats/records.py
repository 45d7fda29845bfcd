"""What the JSON formats share: records that each hold one conversation as a list of messages."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from transcripts.conversation import Conversation, Message, Place, optional_title, require_dict, require_list
from transcripts.json_reader import JsonReader, Record
from transcripts.source import Source
from transcripts.tally import Reason

ReadMessage = Callable[[dict[str, Any], Place], Message | Reason]


def read_records(source: Source, *, key: str, read_message: ReadMessage) -> Iterator[Conversation]:
    """Yield one conversation for each record, from the list under `key`.

    `read_message` turns one object of that list into a message, or into the reason why it is nobody's turn.

    Raises:
        TranscriptUnreadable: naming line and path of what is not of the expected type.
    """
    for record in JsonReader(source).records():
        if record.beginning:
            yield passed_over(record, source, title="title")
            continue
        place = Place(source.name, record.line)
        value = require_dict(record.value, place)
        read = [
            read_message(require_dict(message, place / key / index), place / key / index)
            for index, message in enumerate(require_list(value.get(key), place / key))
        ]
        yield Conversation(
            source=source.name,
            line=record.line,
            messages=tuple(message for message in read if isinstance(message, Message)),
            title=optional_title(value.get("title")),
            dropped=Counter(reason for reason in read if isinstance(reason, Reason)),
        )


def passed_over(record: Record, source: Source, *, title: str) -> Conversation:
    """Return what is known of a conversation that is larger than the limit; `title` is the key that its title has."""
    found = re.search(rf'"{title}"\s*:\s*("(?:[^"\\\x00-\x1f]|\\.)*")', record.beginning)
    try:
        name = optional_title(json.loads(found[1])) if found else ""
    except ValueError:  # an escape that is none
        name = ""
    which = f"[{record.key or record.index}]" + (f" {name!r}" if name else "")
    refusal = source.transcript_too_large(line=record.line, which=which)
    return Conversation(source=source.name, line=record.line, messages=(), title=name, too_large=refusal)
