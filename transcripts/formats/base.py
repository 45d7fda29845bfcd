"""What a transcript format is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

from transcripts.conversation import Conversation
from transcripts.source import Source


class TranscriptFormat(ABC):
    """Reads one kind of file. Holds no state, so that one instance serves every file."""

    name: ClassVar[str]
    default_user_speakers: ClassVar[frozenset[str]] = frozenset()
    """The source's own names for the user; empty where the importer must be told."""
    speakers: ClassVar[frozenset[str]] = frozenset()
    """All the names that there can be, where the format has but a few; a user named otherwise is not meant here."""
    merges_speakers: ClassVar[bool] = False
    """Consecutive messages of one speaker are one turn: people press return in the middle of a sentence."""
    holds_pasted: ClassVar[bool] = False
    """The user talks to an assistant and pastes code, logs and quotes, which are not their words."""
    repeats_messages: ClassVar[bool] = False
    """Branches and resumed sessions begin with copies of earlier messages: same speaker, time and text."""
    file_suffixes: ClassVar[tuple[str, ...]] = ()
    """Other files in a directory or archive of this format are no transcripts; empty = all are."""

    @abstractmethod
    def conversations(self, source: Source) -> Iterator[Conversation]:
        """Yield every conversation in the file's order, reading no further than asked.

        A conversation may turn out to have no messages. Raises `TranscriptRefused` errors that name
        file, line and reason.
        """
