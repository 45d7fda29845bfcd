"""The SQL of this room. Nothing here commits; every query but the one for users to compare names tenant and user."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Literal

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Text,
    bindparam,
    cast,
    delete,
    func,
    insert,
    literal,
    select,
    text,
    true,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import REGCONFIG, TSQUERY, array
from sqlalchemy.dialects.postgresql import insert as insert_or_ignore
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from transcripts.marks import Marks
from transcripts.models import SEARCH_CONFIGURATION, TranscriptRow, TurnRow
from transcripts.transcript import Transcript, Turn

Order = Literal["best", "newest", "oldest"]
_TURNS_OF = 500  # transcripts are named in one statement
_TURNS_AT_ONCE = 500  # rows are inserted: everybody else on the event loop waits while they are written out
_HOLDERS = 32  # are looked at of one transcript: all that have its mark are nearly always states of it


@dataclass(frozen=True, kw_only=True)
class Passage:
    """A turn of the user's that answers a search.

    `matched` counts the query's distinct words (by stem) that the turn holds; `rank` is PostgreSQL's
    `ts_rank`, lowered for long turns: it orders passages of one search and means nothing across two.
    """

    transcript_id: str
    turn_index: int
    text: str
    time: datetime | None
    rank: float
    matched: int


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What is kept of one user; the times are None where no source told any.

    `transcripts` and `turns` are all that is stored; the user's turns and words are counted without transcripts that
    another one continues.
    """

    transcripts: int
    turns: int
    user_turns: int
    user_words: int
    first_started_at: datetime | None
    last_started_at: datetime | None
    last_imported_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Head:
    """A transcript without its turns."""

    id: str
    title: str
    source_format: str
    started_at: datetime | None
    imported_at: datetime
    turns: int
    user_turns: int


class TranscriptRepository:
    """Reads and writes `transcript` and `turn` through one session."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def lock_user(self, *, tenant: str, user: str) -> None:
        """Wait for other imports of this user to end, and hold them off until this transaction does.

        Two imports of the same conversations in different orders would otherwise deadlock.
        """
        await self._session.execute(select(func.pg_advisory_xact_lock(_user_key(tenant, user))))

    async def try_lock_user(self, *, tenant: str, user: str) -> bool:
        """Do as `lock_user`, unless that would wait; say whether it is done."""
        key = _user_key(tenant, user)
        return bool((await self._session.execute(select(func.pg_try_advisory_xact_lock(key)))).scalar_one())

    async def insert(self, transcripts: Sequence[Transcript], *, tenant: str, user: str) -> set[str]:
        """Store those that the user does not have yet; return their ids. The ids given must be distinct."""
        if not transcripts:
            return set()
        rows = await asyncio.to_thread(_transcript_rows, transcripts, tenant=tenant, user=user)
        statement = insert_or_ignore(TranscriptRow).values(rows).on_conflict_do_nothing().returning(TranscriptRow.id)
        new = set((await self._session.execute(statement)).scalars())
        turns = (
            row
            for transcript in transcripts
            if transcript.id in new
            for row in _turn_rows(transcript, tenant=tenant, user=user)
        )
        while some := list(islice(turns, _TURNS_AT_ONCE)):
            await self._session.execute(insert(TurnRow), some)
        return new

    async def page(
        self, *, tenant: str, user: str, limit: int, after: tuple[datetime | None, str] | None
    ) -> list[Transcript]:
        """Return the next transcripts by (started_at, id), those without a time last."""
        far_future = text("'infinity'::timestamptz")
        started = func.coalesce(TranscriptRow.started_at, far_future)
        query = (
            select(TranscriptRow)
            .where(TranscriptRow.tenant == tenant, TranscriptRow.user_id == user)
            .order_by(started, TranscriptRow.id)
            .limit(limit)
        )
        if after is not None:
            time, transcript_id = after
            last = literal(time, TranscriptRow.started_at.type) if time is not None else far_future
            query = query.where(tuple_(started, TranscriptRow.id) > tuple_(last, literal(transcript_id)))
        rows = (await self._session.execute(query)).scalars().all()
        turns = await self._turns([row.id for row in rows], tenant=tenant, user=user)
        return [_transcript(row, turns[row.id]) for row in rows]

    async def sizes(self, *, tenant: str, user: str, limit: int) -> list[tuple[str, int]]:
        """Return the newest last states, those without a time last, each with the bytes of its turns."""
        mine = (TranscriptRow.tenant == tenant, TranscriptRow.user_id == user, ~TranscriptRow.is_continued)
        of_it = (
            TurnRow.tenant == TranscriptRow.tenant,
            TurnRow.user_id == TranscriptRow.user_id,
            TurnRow.transcript_id == TranscriptRow.id,
        )
        # PostgreSQL knows a value's length without reading it.
        size = select(func.coalesce(func.sum(func.octet_length(TurnRow.text)), 0)).where(*of_it).scalar_subquery()
        newest = (TranscriptRow.started_at.desc().nulls_last(), TranscriptRow.id)
        found = await self._session.execute(select(TranscriptRow.id, size).where(*mine).order_by(*newest).limit(limit))
        return [(row[0], int(row[1])) for row in found]

    async def some(self, transcript_ids: Sequence[str], *, tenant: str, user: str) -> list[Transcript]:
        """Return these of the user's transcripts by (started_at, id), those without a time last."""
        query = (
            select(TranscriptRow)
            .where(TranscriptRow.tenant == tenant, TranscriptRow.user_id == user)
            .where(TranscriptRow.id == func.any(cast(list(transcript_ids), ARRAY(Text))))
            .order_by(TranscriptRow.started_at.nulls_last(), TranscriptRow.id)
        )
        rows = (await self._session.execute(query)).scalars().all()
        turns: dict[str, list[Turn]] = {}
        for at in range(0, len(rows), _TURNS_OF):
            turns |= await self._turns([row.id for row in rows[at : at + _TURNS_OF]], tenant=tenant, user=user)
        return [_transcript(row, turns[row.id]) for row in rows]

    async def heads(self, *, tenant: str, user: str, after: str | None, limit: int) -> list[Head]:
        """Return the next transcripts by id, without their turns."""
        row = TranscriptRow
        query = select(row).where(row.tenant == tenant, row.user_id == user).order_by(row.id).limit(limit)
        if after is not None:
            query = query.where(row.id > after)
        return [
            Head(
                id=found.id,
                title=found.title,
                source_format=found.source_format,
                started_at=found.started_at,
                imported_at=found.imported_at,
                turns=found.turn_count,
                user_turns=found.user_turn_count,
            )
            for found in (await self._session.execute(query)).scalars()
        ]

    async def get(self, transcript_id: str, *, tenant: str, user: str) -> Transcript | None:
        """Return one transcript, or None when the user has none of that id."""
        row = await self._session.get(TranscriptRow, (tenant, user, transcript_id))
        if row is None:
            return None
        return _transcript(row, (await self._turns([row.id], tenant=tenant, user=user))[row.id])

    async def count(self, transcript_ids: Sequence[str], *, tenant: str, user: str) -> int:
        """Return how many of these the user has; the ids given must be distinct."""
        query = select(func.count()).where(
            TranscriptRow.tenant == tenant, TranscriptRow.user_id == user, TranscriptRow.id.in_(transcript_ids)
        )
        return int((await self._session.execute(query)).scalar_one())

    async def present(self, transcript_ids: Sequence[str], *, tenant: str, user: str) -> frozenset[str]:
        """Return which of these the user has."""
        query = select(TranscriptRow.id).where(
            TranscriptRow.tenant == tenant,
            TranscriptRow.user_id == user,
            TranscriptRow.id == func.any(cast(list(transcript_ids), ARRAY(Text))),
        )
        return frozenset((await self._session.execute(query)).scalars())

    async def last_states(self, *, tenant: str, user: str) -> frozenset[str]:
        """Return the ids of those transcripts that no other one continues."""
        row = TranscriptRow
        query = select(row.id).where(row.tenant == tenant, row.user_id == user, ~row.is_continued)
        return frozenset((await self._session.execute(query)).scalars())

    async def own_words(self, *, tenant: str) -> dict[str, int]:
        """Return how many words of their own each user of the tenant has stored, those of continued states once."""
        query = (
            select(TranscriptRow.user_id, func.sum(TranscriptRow.user_word_count))
            .where(TranscriptRow.tenant == tenant, ~TranscriptRow.is_continued)
            .group_by(TranscriptRow.user_id)
        )
        return {user: int(words) for user, words in await self._session.execute(query)}

    async def summary(self, *, tenant: str, user: str) -> Summary:
        """Return counts and times; all zero and None for a user without transcripts."""
        query = select(
            func.count(),
            func.coalesce(func.sum(TranscriptRow.turn_count), 0),
            func.coalesce(func.sum(TranscriptRow.user_turn_count).filter(~TranscriptRow.is_continued), 0),
            func.coalesce(func.sum(TranscriptRow.user_word_count).filter(~TranscriptRow.is_continued), 0),
            func.min(TranscriptRow.started_at),
            func.max(TranscriptRow.started_at),
            func.max(TranscriptRow.imported_at),
        ).where(TranscriptRow.tenant == tenant, TranscriptRow.user_id == user)
        found = (await self._session.execute(query)).one()
        return Summary(
            transcripts=found[0],
            turns=found[1],
            user_turns=found[2],
            user_words=found[3],
            first_started_at=found[4],
            last_started_at=found[5],
            last_imported_at=found[6],
        )

    async def users(self, *, tenant: str) -> list[str]:
        """Return everybody in the tenant who has a transcript, sorted by code point."""
        query = select(TranscriptRow.user_id).where(TranscriptRow.tenant == tenant).distinct()
        return sorted((await self._session.execute(query)).scalars())

    async def delete(self, *, tenant: str, user: str, transcript_id: str | None) -> int:
        """Remove one transcript, or all of the user's when `transcript_id` is None; return how many there were."""
        statement = delete(TranscriptRow).where(TranscriptRow.tenant == tenant, TranscriptRow.user_id == user)
        if transcript_id is not None:
            statement = statement.where(TranscriptRow.id == transcript_id)
        removed = await self._session.execute(statement.returning(TranscriptRow.id))
        return len(removed.all())

    async def maybe_held(
        self, transcript_ids: Sequence[str], *, tenant: str, user: str, are_continued: bool
    ) -> frozenset[str]:
        """Return which others, of those that are noted as continued or of those that are not, these may hold."""
        row = TranscriptRow
        these = func.any(cast(list(transcript_ids), ARRAY(Text)))
        query = select(row.marks).where(row.tenant == tenant, row.user_id == user, row.id == these)
        marks = {mark for own in (await self._session.execute(query)).scalars() for mark in own or ()}
        sought = select(row).where(row.sought == func.any(cast(list(marks), ARRAY(BigInteger))))
        found = sought.offset(0).subquery()  # see `maybe_holders`
        mine = (found.c.tenant == tenant, found.c.user_id == user, found.c.is_continued == are_continued)
        ids = (await self._session.execute(select(found.c.id).where(*mine))).scalars()
        return frozenset(ids) - {*transcript_ids}

    async def maybe_holders(self, transcript_ids: Sequence[str], *, tenant: str, user: str) -> list[tuple[str, str]]:
        """Return which others may hold these, each with one of these; the longest first, all of one in a row."""
        whole, part = TranscriptRow, aliased(TranscriptRow)
        # Without the offset, PostgreSQL might look at everything that the user has, again for each: while a first
        # import goes on, no statistics tell it how much that is. Marks are nobody else's anyway.
        marked = select(whole).where(whole.marks.bool_op("@>")(array([part.sought]))).correlate(part)
        found = marked.offset(0).lateral()
        holder = (
            select(found.c.id, found.c.turn_count)
            .where(found.c.tenant == tenant, found.c.user_id == user)
            .where(found.c.id != part.id, found.c.turn_count >= part.turn_count)
            .order_by(found.c.turn_count.desc(), found.c.id)
            .limit(_HOLDERS)
            .lateral()
        )
        query = (
            select(holder.c.id, part.id)
            .select_from(part)
            .join(holder, true())
            .where(part.tenant == tenant, part.user_id == user)
            .where(part.id == func.any(cast(list(transcript_ids), ARRAY(Text))))
            .order_by(holder.c.turn_count.desc(), holder.c.id, part.id)
        )
        return [(row[0], row[1]) for row in await self._session.execute(query)]

    async def note(self, transcript_ids: Sequence[str], *, tenant: str, user: str, are_continued: bool) -> None:
        """Note that others of the user's continue these, or none does."""
        row = TranscriptRow
        mine = (row.tenant == tenant, row.user_id == user)
        these = row.id == func.any(cast(list(transcript_ids), ARRAY(Text)))
        await self._session.execute(update(row).where(*mine, these).values(is_continued=are_continued))

    async def unmarked_users(self, *, after: tuple[str, str], limit: int) -> list[tuple[str, str]]:
        """Return the next (tenant, user) who have transcripts that must be marked."""
        row = TranscriptRow
        owner = tuple_(row.tenant, row.user_id)
        query = select(row.tenant, row.user_id).where(row.sought.is_(None), owner > tuple_(*map(literal, after)))
        found = await self._session.execute(query.distinct().order_by(row.tenant, row.user_id).limit(limit))
        return [(tenant, user) for tenant, user in found]

    async def unmarked(self, *, tenant: str, user: str, limit: int) -> dict[str, bool]:
        """Return ids of transcripts that must be marked, each with whether it had been before; the longest first.

        What goes on is marked before what it continues, which is known to be continued once it is marked itself.
        """
        row = TranscriptRow
        query = select(row.id, row.marks.is_not(None)).where(row.tenant == tenant, row.user_id == user)
        query = query.where(row.sought.is_(None)).order_by(row.turn_count.desc(), row.user_word_count.desc(), row.id)
        found = await self._session.execute(query.limit(limit))
        return {row[0]: row[1] for row in found}

    async def mark(self, transcripts: Sequence[Transcript], *, tenant: str, user: str) -> None:
        """Give these transcripts, which the user has, their marks."""
        rows = await asyncio.to_thread(_marked_keys, transcripts, tenant=tenant, user=user)
        if rows:
            await self._session.execute(update(TranscriptRow), rows)

    async def words(self, query: str) -> list[str]:
        """Return the query's distinct words as the index knows them: stemmed, without stop words, sorted."""
        vector = func.to_tsvector(cast(SEARCH_CONFIGURATION, REGCONFIG), query)
        found = await self._session.execute(select(func.tsvector_to_array(vector)))
        return sorted(found.scalar_one())

    async def search(
        self, words: Sequence[str], *, tenant: str, user: str, min_match: int, limit: int, order: Order = "best"
    ) -> list[Passage]:
        """Return the user's own turns that hold at least `min_match` of `words`, which `words()` gave.

        Of a conversation that went on, only its last state is looked at. The best hold most of the words; by time,
        those without one come last.
        """
        whole = TranscriptRow
        earlier = select(whole.id).where(whole.tenant == tenant, whole.user_id == user, whole.is_continued)
        any_word = cast(bindparam("any_word", match_any(words), Text), TSQUERY)
        held = func.unnest(cast(list(words), ARRAY(Text))).table_valued("word").render_derived(name="wanted")
        matched = (
            select(func.count())
            .select_from(held)
            .where(held.c.word == func.any(func.tsvector_to_array(TurnRow.search)))
            .correlate(TurnRow)
            .scalar_subquery()
        )
        rank = func.ts_rank(TurnRow.search, any_word, 1)  # 1: divided by 1 + log(length)
        found = (
            select(
                TurnRow.transcript_id, TurnRow.index, TurnRow.text, TurnRow.time,
                rank.label("rank"), matched.label("matched"),
            )
            .where(TurnRow.tenant == tenant, TurnRow.user_id == user, TurnRow.role == "user")
            .where(TurnRow.search.bool_op("@@")(any_word), TurnRow.transcript_id.not_in(earlier))
            .subquery()
        )  # fmt: skip
        orders = {
            "best": (found.c.matched.desc(), found.c.rank.desc(), found.c.transcript_id, found.c.index),
            "newest": (found.c.time.desc().nulls_last(), found.c.transcript_id, found.c.index.desc()),
            "oldest": (found.c.time.asc().nulls_last(), found.c.transcript_id, found.c.index),
        }
        query = select(found).where(found.c.matched >= min_match).order_by(*orders[order]).limit(limit)
        return [
            Passage(transcript_id=row[0], turn_index=row[1], text=row[2], time=row[3], rank=row[4], matched=row[5])
            for row in await self._session.execute(query)
        ]

    async def _turns(self, transcript_ids: Sequence[str], *, tenant: str, user: str) -> dict[str, list[Turn]]:
        turns: dict[str, list[Turn]] = {transcript_id: [] for transcript_id in transcript_ids}
        query = (
            select(TurnRow.transcript_id, TurnRow.role, TurnRow.text, TurnRow.time)
            .where(TurnRow.tenant == tenant, TurnRow.user_id == user, TurnRow.transcript_id.in_(transcript_ids))
            .order_by(TurnRow.transcript_id, TurnRow.index)
        )
        for transcript_id, role, words, time in await self._session.execute(query):
            turns[transcript_id].append(Turn(role=role, text=words, time=time))
        return turns


def match_any(words: Iterable[str]) -> str:
    """Return a tsquery literal that matches any of `words`, each quoted so that none is read as syntax."""
    quoted = (word.replace("\\", "\\\\").replace("'", "''") for word in words)
    return " | ".join(f"'{word}'" for word in quoted)


def _transcript_rows(transcripts: Sequence[Transcript], *, tenant: str, user: str) -> list[dict[str, Any]]:
    """Return a row each; it counts every word and digests every turn."""
    return [_transcript_row(transcript, tenant=tenant, user=user) for transcript in transcripts]


def _transcript_row(transcript: Transcript, *, tenant: str, user: str) -> dict[str, Any]:
    return {
        "tenant": tenant,
        "user_id": user,
        "id": transcript.id,
        "source_format": transcript.source_format,
        "title": transcript.title,
        "started_at": transcript.started_at,
        "turn_count": len(transcript.turns),
        "user_turn_count": len(transcript.user_turns),
        "user_word_count": sum(len(turn.text.split()) for turn in transcript.user_turns),
        **_marks(transcript, tenant=tenant, user=user),
    }


def _user_key(tenant: str, user: str) -> ColumnElement[int]:
    return func.hashtextextended(f"lorry transcripts\n{tenant}\n{user}", 0)


def _marked_keys(transcripts: Sequence[Transcript], *, tenant: str, user: str) -> list[dict[str, Any]]:
    key = {"tenant": tenant, "user_id": user}
    return [{**key, "id": each.id, **_marks(each, tenant=tenant, user=user)} for each in transcripts]


def _marks(transcript: Transcript, *, tenant: str, user: str) -> dict[str, Any]:
    marks = Marks.of(transcript, tenant=tenant, user=user)
    return {"marks": marks.own, "sought": marks.sought}


def _turn_rows(transcript: Transcript, *, tenant: str, user: str) -> Iterator[dict[str, Any]]:
    key = {"tenant": tenant, "user_id": user, "transcript_id": transcript.id}
    for index, turn in enumerate(transcript.turns):
        yield {**key, "index": index, "role": turn.role, "text": turn.text, "time": turn.time}


def _transcript(row: TranscriptRow, turns: list[Turn]) -> Transcript:
    return Transcript(turns=tuple(turns), source_format=row.source_format, title=row.title)
