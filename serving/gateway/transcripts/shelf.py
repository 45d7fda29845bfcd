"""A user's transcripts under their callers' own names.

A name stands for one conversation at a time. Putting another under it replaces the one before, which is deleted unless
another name stands for it, too. Whatever has no name of a caller's, because it was imported otherwise, is found by its
id. With a transcript that is deleted go the answers that the gateway keeps for repeated requests: they may quote it.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate

from sqlalchemy.ext.asyncio import AsyncSession

from kit.database import Database
from serving.gateway.idempotency.repository import RequestRepository
from serving.gateway.transcripts.repository import TranscriptNameRepository
from serving.gateway.transcripts.schemas import TranscriptHead, TranscriptPut
from transcripts.errors import TranscriptNotFound
from transcripts.repository import Head
from transcripts.store import TranscriptStore
from transcripts.transcript import Transcript

_MOST_WHOLE = 100  # transcripts that are read at once


class Shelf:
    """Reads and writes transcripts, each call in a transaction of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, tenant: str, user: str, name: str, transcript: Transcript) -> TranscriptPut:
        """Keep a transcript under a name.

        Raises:
            NoUserTurn: when no turn is the user's.
        """
        async with self._database.transaction() as session:
            new = await _put(session, tenant, user, {name: transcript})
        return TranscriptPut(id=transcript.id, name=name, created=new == 1)

    async def put_all(self, tenant: str, user: str, transcripts: Mapping[str, Transcript]) -> int:
        """Keep transcripts under their names, all or none; return how many conversations the user did not have yet."""
        async with self._database.transaction() as session:
            return await _put(session, tenant, user, transcripts)

    async def get(self, tenant: str, user: str, name: str) -> tuple[Transcript, list[str]]:
        """Return the transcript of a name, or of an id, and all names that it has.

        Raises:
            TranscriptNotFound: when the user has none of either.
        """
        async with self._database.transaction() as session:
            names = TranscriptNameRepository(session, tenant=tenant, user=user)
            transcript_id = (await names.ids([name])).get(name, name)
            transcript = await TranscriptStore(session).get(tenant, user, transcript_id)
            return transcript, (await names.names([transcript_id])).get(transcript_id, [])

    async def page(
        self, tenant: str, user: str, *, after: str | None, limit: int
    ) -> tuple[list[TranscriptHead], str | None]:
        """Return transcripts by id, and after which the next page begins; None = there is none."""
        async with self._database.transaction() as session:
            heads = await TranscriptStore(session).heads(tenant, user, after=after, limit=limit + 1)
            kept = heads[:limit]
            names = await TranscriptNameRepository(session, tenant=tenant, user=user).names([head.id for head in kept])
        found = [_head(head, names.get(head.id, [])) for head in kept]
        return found, kept[-1].id if len(heads) > limit else None

    async def whole_page(
        self, tenant: str, user: str, *, after: str | None, limit: int, most_characters: int
    ) -> tuple[list[tuple[Transcript, list[str]]], str | None]:
        """Return transcripts with their turns and names, as `page` does, at least one and no more text than that.

        One that is deleted while the page is read is not on it.
        """
        most = min(limit, _MOST_WHOLE)
        async with self._database.transaction() as session:
            store = TranscriptStore(session)
            heads = await store.heads(tenant, user, after=after, limit=most + 1)
            ids = [head.id for head in heads[:most]]
            whole = {each.id: each for each in await store.some(tenant, user, ids)}
            names = await TranscriptNameRepository(session, tenant=tenant, user=user).names(ids)
        characters = [sum(len(turn.text) for turn in whole[name].turns) if name in whole else 0 for name in ids]
        fitting = max(1, sum(total <= most_characters for total in accumulate(characters)))
        found = [(whole[name], names.get(name, [])) for name in ids[:fitting] if name in whole]
        return found, ids[fitting - 1] if len(heads) > fitting else None

    async def delete_all(self, tenant: str, user: str) -> int:
        """Delete all transcripts of a user; return how many there were."""
        async with self._database.transaction() as session:
            store = TranscriptStore(session)
            await store.hold(tenant, user)
            deleted = await store.delete(tenant, user)
            await RequestRepository(session).erase(tenant=tenant, user=user)
        return deleted

    async def delete(self, tenant: str, user: str, name: str) -> None:
        """Delete the transcript of a name, or of an id with all its names.

        A conversation that goes by another name as well stays under that.

        Raises:
            TranscriptNotFound: when the user has none of either.
        """
        async with self._database.transaction() as session:
            store, names = TranscriptStore(session), TranscriptNameRepository(session, tenant=tenant, user=user)
            await store.hold(tenant, user)
            transcript_id = (await names.ids([name])).get(name)
            if transcript_id is not None:
                await names.delete(name)
                if await names.count(transcript_id):
                    return
            await store.delete(tenant, user, transcript_id or name)
            await RequestRepository(session).erase(tenant=tenant, user=user)


async def _put(session: AsyncSession, tenant: str, user: str, transcripts: Mapping[str, Transcript]) -> int:
    store, names = TranscriptStore(session), TranscriptNameRepository(session, tenant=tenant, user=user)
    added = await store.add(tenant, user, transcripts.values())
    before = await names.ids(list(transcripts))
    await names.put({name: transcript.id for name, transcript in transcripts.items()})
    for left in {before[name] for name in before if before[name] != transcripts[name].id}:
        if not await names.count(left):
            try:
                await store.delete(tenant, user, left)
            except TranscriptNotFound:
                continue  # whoever deleted it meanwhile did what was wanted
            await RequestRepository(session).erase(tenant=tenant, user=user)
    return added.new


def _head(head: Head, names: list[str]) -> TranscriptHead:
    return TranscriptHead(
        id=head.id,
        names=names,
        title=head.title,
        source_format=head.source_format,
        started_at=head.started_at,
        imported_at=head.imported_at,
        turns=head.turns,
        user_turns=head.user_turns,
    )
