"""Which of a user's stored transcripts are earlier states of others, kept up while transcripts come and go.

`without_continued` decides what continues what, of two transcripts at a time; their marks say which two to look at.
Whoever calls holds the user's lock, so that no other transaction adds or deletes meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from itertools import groupby

from transcripts.continuation import without_continued
from transcripts.repository import TranscriptRepository
from transcripts.transcript import Transcript


class States:
    """The states of one user's conversations."""

    def __init__(self, repository: TranscriptRepository, *, tenant: str, user: str) -> None:
        self._repository = repository
        self._tenant = tenant
        self._user = user

    async def note_added(self, added: Mapping[str, Transcript]) -> frozenset[str]:
        """Note which of these, by id, others continue, and which others they continue; return all that were noted."""
        if not added:
            return frozenset()
        others = await self._repository.maybe_held(
            list(added), tenant=self._tenant, user=self._user, are_continued=False
        )
        held = await self._held(added.keys() | others, known=added)
        await self._note(held, are_continued=True)
        return held

    async def delete(self, transcript_id: str) -> int:
        """Delete one transcript, and note which ones it alone continued; return how many there were."""
        whose = {"tenant": self._tenant, "user": self._user}
        others = await self._repository.maybe_held([transcript_id], **whose, are_continued=True)
        await self._note(others, are_continued=False)  # first: the database unmarks what nobody has looked at
        deleted = await self._repository.delete(**whose, transcript_id=transcript_id)
        await self._note(await self._held(others, known={}), are_continued=True)
        return deleted

    async def _held(self, ids: Collection[str], *, known: Mapping[str, Transcript]) -> frozenset[str]:
        """Return which of these another one holds; `known` need not be read again. Two are in memory at a time."""
        pairs = await self._repository.maybe_holders(list(ids), tenant=self._tenant, user=self._user) if ids else []
        held: set[str] = set()
        for holder, group in groupby(pairs, key=lambda pair: pair[0]):
            left = [part for _, part in group if part not in held]
            whole = (known.get(holder) or await self._read(holder)) if left else None
            for part in left:
                if whole and (read := known.get(part) or await self._read(part)):
                    last = await asyncio.to_thread(without_continued, [whole, read])
                    held.update({part} - {each.id for each in last})
        return frozenset(held)

    async def _read(self, transcript_id: str) -> Transcript | None:
        return await self._repository.get(transcript_id, tenant=self._tenant, user=self._user)

    async def _note(self, ids: Collection[str], *, are_continued: bool) -> None:
        if ids:
            await self._repository.note(list(ids), tenant=self._tenant, user=self._user, are_continued=are_continued)
