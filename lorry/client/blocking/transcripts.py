# Made by scripts/blocking_client.py of lorry/client/awaited: change it there.
"""Transcripts: put, read, listed, deleted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lorry.client.blocking.wire import Wire
from lorry.client.calls import transcripts as calls
from lorry.client.results import BulkResult, Transcript, TranscriptHead


class Transcripts:
    """The transcripts of the tenant's users."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def put(self, user: str, transcript: Transcript) -> str:
        """Keep a transcript under its name, in the place of what had that name; return its id.

        Raises:
            Invalid: naming the field.
        """
        return self._wire.send(calls.put(user, transcript))

    def put_many(self, user: str, transcripts: Iterable[Transcript]) -> BulkResult:
        """Keep many transcripts, in as many calls as it takes; those that are refused are named in the result."""
        sent = [self._wire.send(call) for call in calls.put_many(user, transcripts)]
        return calls.merge(sent)

    def get(self, user: str, name: str) -> Transcript:
        """Return a transcript by its name or id.

        Raises:
            NotFound: when the user has none.
        """
        return self._wire.send(calls.get(user, name))

    def delete(self, user: str, name: str) -> None:
        """Delete a transcript by its name or id.

        Raises:
            NotFound: when the user has none.
        """
        self._wire.send(calls.delete(user, name))

    def delete_all(self, user: str) -> int:
        """Delete all of a user's transcripts; return how many there were. To forget somebody, erase them."""
        return self._wire.send(calls.delete_all(user))

    def read_all(self, user: str) -> Iterator[Transcript]:
        """Yield all of a user's transcripts with their turns."""
        return self._wire.pages(lambda cursor: calls.whole_page(user, cursor=cursor))

    def list(self, user: str) -> Iterator[TranscriptHead]:
        """Yield all of a user's transcripts, without their turns."""
        return self._wire.pages(lambda cursor: calls.list_page(user, cursor=cursor))
