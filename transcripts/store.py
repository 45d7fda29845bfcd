"""The transcripts of a tenant's users: added all or none, read back as they were, deleted.

Laws: adding what is there already changes nothing; what `list` returns equals what was added, and
its order depends on the transcripts alone. What of the words counts does not depend on the order of adding either.
"""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from kit.names import check_name
from transcripts.conversation import unfit
from transcripts.errors import NoUserTurn, TranscriptNotFound, TranscriptUnreadable
from transcripts.repository import Head, Summary, TranscriptRepository
from transcripts.states import States
from transcripts.transcript import Transcript

# One statement inserts at most so many transcripts, and starts when so much text has been gathered.
_BATCH_TRANSCRIPTS = 500
_BATCH_CHARACTERS = 4 * 1024 * 1024
_PAGE_TRANSCRIPTS = 200
_MOST_RECENT = 20_000


@dataclass(frozen=True, kw_only=True)
class Added:
    """How many transcripts were stored, and how many the user had already (or came twice)."""

    new: int
    known: int


@dataclass(frozen=True, kw_only=True)
class Marked:
    """How many transcripts were marked, and which turned out continued, now, whose words had counted until then."""

    transcripts: int
    had_counted: frozenset[str]


class TranscriptStore:
    """Transcripts as one session sees them; whoever opened its transaction commits."""

    def __init__(self, session: AsyncSession) -> None:
        self._repository = TranscriptRepository(session)

    async def add(self, tenant: str, user: str, transcripts: Iterable[Transcript]) -> Added:
        """Store those transcripts that the user does not have yet.

        The iterable is drawn in batches in a worker thread, so an importer may be handed in as it is, and
        memory holds one batch. When it raises, the error rises from here and the caller's transaction, rolled
        back, keeps none of them.

        Raises:
            InvalidName: when `tenant` or `user` is no name.
            NoUserTurn: when a transcript has no turn of the user's.
            TranscriptUnreadable: when a text holds what cannot be stored (NUL, half a surrogate pair).
        """
        _check_owner(tenant, user)
        await self._repository.lock_user(tenant=tenant, user=user)
        given = new = 0
        batches, states = _batches(transcripts), self._states(tenant, user)
        while batch := await asyncio.to_thread(next, batches, None):
            given += batch.given
            added = await self._repository.insert(batch.distinct, tenant=tenant, user=user)
            new += len(added)
            await states.note_added({each.id: each for each in batch.distinct if each.id in added})
        return Added(new=new, known=given - new)

    async def unmarked_users(self, *, after: tuple[str, str], limit: int) -> builtins.list[tuple[str, str]]:
        """Return at most `limit` (tenant, user), in order, of whom an earlier release has stored or deleted something.

        `after` is the last of the page before.
        """
        return await self._repository.unmarked_users(after=after, limit=limit)

    async def mark(self, tenant: str, user: str, *, limit: int) -> Marked:
        """Compare some of what an earlier release has stored, or left when it deleted, with all else of the user's.

        None are marked when none are left, or when somebody else adds to the user's transcripts or marks them now.
        """
        _check_owner(tenant, user)
        if not await self._repository.try_lock_user(tenant=tenant, user=user):
            return Marked(transcripts=0, had_counted=frozenset())
        unmarked = await self._repository.unmarked(tenant=tenant, user=user, limit=limit)
        transcripts = await self._repository.some(list(unmarked), tenant=tenant, user=user)
        await self._repository.mark(transcripts, tenant=tenant, user=user)
        continued = await self._states(tenant, user).note_added({each.id: each for each in transcripts})
        # What had marks counts only since its last state was deleted.
        again = {transcript_id for transcript_id, was_marked in unmarked.items() if was_marked}
        return Marked(transcripts=len(transcripts), had_counted=continued - again)

    async def hold(self, tenant: str, user: str) -> None:
        """Wait for other imports of this user to end, and hold them off until the transaction does."""
        _check_owner(tenant, user)
        await self._repository.lock_user(tenant=tenant, user=user)

    async def get(self, tenant: str, user: str, transcript_id: str) -> Transcript:
        """Return one transcript.

        Raises:
            TranscriptNotFound: when the user has none of that id.
        """
        _check_owner(tenant, user)
        found = await self._repository.get(transcript_id, tenant=tenant, user=user)
        if found is None:
            raise TranscriptNotFound(f"the user has no transcript {transcript_id!r}", field="transcript_id")
        return found

    async def heads(self, tenant: str, user: str, *, after: str | None = None, limit: int = 100) -> builtins.list[Head]:
        """Return at most `limit` transcripts by id, without their turns; `after` is the last id of the page before."""
        _check_owner(tenant, user)
        return await self._repository.heads(tenant=tenant, user=user, after=after, limit=limit)

    async def stream(self, tenant: str, user: str) -> AsyncIterator[Transcript]:
        """Yield the user's transcripts by (started_at, id), those without a time last, a page in memory at a time."""
        _check_owner(tenant, user)
        after = None
        while True:
            page = await self._repository.page(tenant=tenant, user=user, limit=_PAGE_TRANSCRIPTS, after=after)
            for transcript in page:
                yield transcript
            if len(page) < _PAGE_TRANSCRIPTS:
                return
            after = (page[-1].started_at, page[-1].id)

    async def list(self, tenant: str, user: str) -> builtins.list[Transcript]:
        """Return what `stream` yields; empty for a user without transcripts."""
        return [transcript async for transcript in self.stream(tenant, user)]

    async def recent(self, tenant: str, user: str, *, most_bytes: int) -> builtins.list[Transcript]:
        """Return the newest of what `list` returns, in its order, whose turns have no more bytes together (UTF-8).

        What another one continues is left out.
        """
        _check_owner(tenant, user)
        left, kept = most_bytes, set()
        for transcript_id, size_bytes in await self._repository.sizes(tenant=tenant, user=user, limit=_MOST_RECENT):
            if size_bytes <= left:
                left -= size_bytes
                kept.add(transcript_id)
        return await self._repository.some(sorted(kept), tenant=tenant, user=user)

    async def some(self, tenant: str, user: str, transcript_ids: Sequence[str]) -> builtins.list[Transcript]:
        """Return these of the user's transcripts, as far as they are stored, by (started_at, id)."""
        _check_owner(tenant, user)
        return await self._repository.some(transcript_ids, tenant=tenant, user=user)

    async def summary(self, tenant: str, user: str) -> Summary:
        """Return counts and times; all zero and None for a user without transcripts."""
        _check_owner(tenant, user)
        return await self._repository.summary(tenant=tenant, user=user)

    async def users(self, tenant: str) -> builtins.list[str]:
        """Return everybody in the tenant who has a transcript, sorted."""
        check_name(tenant, field="tenant")
        return await self._repository.users(tenant=tenant)

    async def has_all(self, tenant: str, user: str, transcript_ids: Iterable[str]) -> bool:
        """Say whether the user still has every one of these transcripts."""
        _check_owner(tenant, user)
        ids = sorted(set(transcript_ids))
        return await self._repository.count(ids, tenant=tenant, user=user) == len(ids)

    async def present(self, tenant: str, user: str, transcript_ids: Iterable[str]) -> frozenset[str]:
        """Return which of these transcripts the user still has."""
        _check_owner(tenant, user)
        return await self._repository.present(sorted(set(transcript_ids)), tenant=tenant, user=user)

    async def last_states(self, tenant: str, user: str) -> frozenset[str]:
        """Return the ids of those transcripts that no other one continues; all that was said stands in these."""
        _check_owner(tenant, user)
        return await self._repository.last_states(tenant=tenant, user=user)

    async def own_words(self, tenant: str) -> dict[str, int]:
        """Return how many words of their own every user of the tenant has stored.

        Those of transcripts that another one continues are counted there only.
        """
        check_name(tenant, field="tenant")
        return await self._repository.own_words(tenant=tenant)

    async def delete(self, tenant: str, user: str, transcript_id: str | None = None) -> int:
        """Delete one transcript, or with None all of the user's; return how many were deleted.

        Raises:
            TranscriptNotFound: when `transcript_id` is given and the user has none of that id.
        """
        _check_owner(tenant, user)
        await self._repository.lock_user(tenant=tenant, user=user)
        if transcript_id is None:
            return await self._repository.delete(tenant=tenant, user=user, transcript_id=None)
        deleted = await self._states(tenant, user).delete(transcript_id)
        if not deleted:
            raise TranscriptNotFound(f"the user has no transcript {transcript_id!r}", field="transcript_id")
        return deleted

    def _states(self, tenant: str, user: str) -> States:
        return States(self._repository, tenant=tenant, user=user)


def _check_owner(tenant: str, user: str) -> None:
    check_name(tenant, field="tenant")
    check_name(user, field="user_id")


@dataclass(frozen=True, kw_only=True)
class _Batch:
    """What is inserted at once: each conversation once, by id; `given` counts those that came twice, too."""

    given: int
    distinct: list[Transcript]

    @classmethod
    def of(cls, transcripts: Sequence[Transcript]) -> _Batch:
        """Make one, which digests every turn."""
        distinct = {transcript.id: transcript for transcript in reversed(transcripts)}
        return cls(given=len(transcripts), distinct=[distinct[key] for key in sorted(distinct)])


def _batches(transcripts: Iterable[Transcript]) -> Iterator[_Batch]:
    """Yield checked transcripts in batches that bound both their number and their text."""
    batch: list[Transcript] = []
    characters = 0
    for index, transcript in enumerate(transcripts):
        _check(transcript, index)
        batch.append(transcript)
        characters += sum(len(turn.text) for turn in transcript.turns)
        if len(batch) >= _BATCH_TRANSCRIPTS or characters >= _BATCH_CHARACTERS:
            yield _Batch.of(batch)
            batch, characters = [], 0
    if batch:
        yield _Batch.of(batch)


def _check(transcript: Transcript, index: int) -> None:
    """Refuse what no importer of ours yields, but a caller may build."""
    if not transcript.user_turns:
        raise NoUserTurn(f"transcripts[{index}] has no turn of the user's", field=f"transcripts[{index}]")
    if (reason := unfit(transcript.title)) is not None:
        raise TranscriptUnreadable(f"transcripts[{index}].title {reason}", field=f"transcripts[{index}].title")
    for number, turn in enumerate(transcript.turns):
        field = f"transcripts[{index}].turns[{number}]"
        if turn.role not in {"user", "other"}:
            raise TranscriptUnreadable(f"{field}.role must be 'user' or 'other'", field=f"{field}.role")
        if (reason := unfit(turn.text)) is not None:
            raise TranscriptUnreadable(f"{field}.text {reason}", field=f"{field}.text")
