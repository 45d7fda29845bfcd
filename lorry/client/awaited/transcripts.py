"""Transcripts: put, read, listed, deleted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

from lorry.client.awaited.wire import AsyncWire
from lorry.client.calls import transcripts as calls
from lorry.client.results import BulkResult, Transcript, TranscriptHead


class AsyncTranscripts:
    """The transcripts of the tenant's users."""

    def __init__(self, wire: AsyncWire) -> None:
        self._wire = wire

    async def put(self, user: str, transcript: Transcript) -> str:
        """Keep a transcript under its name, in the place of what had that name; return its id.

        Raises:
            Invalid: naming the field.
        """
        return await self._wire.send(calls.put(user, transcript))

    async def put_many(self, user: str, transcripts: Iterable[Transcript]) -> BulkResult:
        """Keep many transcripts, in as many calls as it takes; those that are refused are named in the result."""
        sent = [await self._wire.send(call) for call in calls.put_many(user, transcripts)]
        return calls.merge(sent)

    async def get(self, user: str, name: str) -> Transcript:
        """Return a transcript by its name or id.

        Raises:
            NotFound: when the user has none.
        """
        return await self._wire.send(calls.get(user, name))

    async def delete(self, user: str, name: str) -> None:
        """Delete a transcript by its name or id.

        Raises:
            NotFound: when the user has none.
        """
        await self._wire.send(calls.delete(user, name))

    async def delete_all(self, user: str) -> int:
        """Delete all of a user's transcripts; return how many there were. To forget somebody, erase them."""
        return await self._wire.send(calls.delete_all(user))

    def read_all(self, user: str) -> AsyncIterator[Transcript]:
        """Yield all of a user's transcripts with their turns."""
        return self._wire.pages(lambda cursor: calls.whole_page(user, cursor=cursor))

    def list(self, user: str) -> AsyncIterator[TranscriptHead]:
        """Yield all of a user's transcripts, without their turns."""
        return self._wire.pages(lambda cursor: calls.list_page(user, cursor=cursor))
