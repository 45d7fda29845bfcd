"""What a transcript format is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from transcripts.conversation import Conversation
from transcripts.source import Source


class TranscriptFormat(Protocol):
    """Reads one kind of file. Holds no state, so that one instance serves every file.

    `default_user_speakers` are the source's own names for the user; empty where the importer must
    be told. `merges_speakers` joins consecutive messages of one speaker into one turn, for sources
    in which people press return in the middle of a sentence.
    """

    name: str
    default_user_speakers: frozenset[str]
    merges_speakers: bool

    def conversations(self, source: Source) -> Iterator[Conversation]:
        """Yield every conversation in the file's order, reading no further than asked.

        A conversation may turn out to have no messages. Raises `TranscriptRefused` errors that name
        file, line and reason.
        """
        ...
