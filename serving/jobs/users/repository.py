"""The SQL of the users of batches. Nothing here commits; a change that comes too late changes nothing, and says so."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Text, and_, case, cast, exists, func, literal, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from serving.erasure.models import ErasureRow
from serving.jobs.fleet.repository import alive
from serving.jobs.models import BatchRow, UserRow, WorkerRow
from serving.jobs.states import DELIVERED, OPEN, BatchState, UserState

_CHUNK = 1000
_ERASED = {"code": "erased", "message": "the user was erased"}


@dataclass(frozen=True, kw_only=True)
class Hand:
    """One user while a worker has them in hand: `run` is this time's number."""

    batch_id: str
    user_id: str
    run: int


@dataclass(frozen=True, kw_only=True)
class Taken:
    """A user that was just taken in hand."""

    hand: Hand
    tenant: str
    version_id: str | None
    attempts: int
    submitted_at: datetime


class UserRepository:
    """Reads and writes `extraction_batch_user` through one session."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    # ----- planning

    async def add(self, batch_id: str, users: Iterable[Mapping[str, Any]]) -> None:
        """Put users into a batch; who is in it already stays as they are."""
        rows = [{"batch_id": batch_id, **user} for user in users]
        for at in range(0, len(rows), _CHUNK):
            await self._session.execute(insert(UserRow).on_conflict_do_nothing(), rows[at : at + _CHUNK])

    async def count(self, batch_id: str) -> int:
        """Return how many users the batch has."""
        query = select(func.count()).where(UserRow.batch_id == batch_id)
        return int((await self._session.execute(query)).scalar_one())

    async def unplanned(self, batch_id: str, *, limit: int) -> list[str]:
        """Return waiting users of whom it is not known yet which version is asked."""
        query = (
            select(UserRow.user_id)
            .where(UserRow.batch_id == batch_id, UserRow.state == UserState.WAITING, UserRow.version_id.is_(None))
            .order_by(UserRow.user_id)
            .limit(limit)
        )
        return list((await self._session.execute(query)).scalars())

    async def planned(self, batch_id: str, *, after: str, limit: int) -> list[tuple[str, str]]:
        """Return waiting users with the version to ask, by name, after a name."""
        query = (
            select(UserRow.user_id, UserRow.version_id)
            .where(UserRow.batch_id == batch_id, UserRow.state == UserState.WAITING, UserRow.version_id.is_not(None))
            .where(UserRow.user_id > after)
            .order_by(UserRow.user_id)
            .limit(limit)
        )
        return [(user, version_id or "") for user, version_id in await self._session.execute(query)]

    async def set_version(self, batch_id: str, user: str, *, version_id: str, version: int) -> None:
        """Write down which version is asked about a user."""
        statement = update(UserRow).where(UserRow.batch_id == batch_id, UserRow.user_id == user)
        await self._session.execute(statement.values(version_id=version_id, version=version))

    async def end_waiting(
        self, batch_id: str, user: str, state: UserState, *, sequence: int, error: Mapping[str, Any] | None
    ) -> bool:
        """Deliver a user who needs no work, or with whom none is possible; False when they do not wait any more."""
        statement = (
            update(UserRow)
            .where(UserRow.batch_id == batch_id, UserRow.user_id == user, UserRow.state == UserState.WAITING)
            .values(state=state, sequence=sequence, error=error, ended_at=func.clock_timestamp())
            .returning(UserRow.user_id)
        )
        return (await self._session.execute(statement)).first() is not None

    # ----- in hand

    async def claim(self, batch_id: str, *, worker_id: str, limit: int) -> list[Taken]:
        """Take the next users of a running batch in hand, in adapter order; whom others just take are passed over."""
        running = exists().where(BatchRow.id == batch_id, BatchRow.state == BatchState.RUNNING)
        due = or_(UserRow.not_before.is_(None), UserRow.not_before <= func.now())
        turn = (
            select(UserRow.user_id)
            .where(UserRow.batch_id == batch_id, UserRow.state == UserState.WAITING, due, running)
            .order_by(UserRow.version_id, UserRow.user_id)
            .limit(limit)
            .with_for_update(skip_locked=True)
            .cte("turn")  # evaluated once; what stands in the condition may be evaluated for each row, and lock more
        )
        statement = (
            update(UserRow)
            .where(UserRow.batch_id == batch_id, UserRow.user_id == turn.c.user_id, BatchRow.id == UserRow.batch_id)
            .values(
                state=UserState.HELD,
                worker_id=worker_id,
                run=UserRow.run + 1,
                held_at=func.clock_timestamp(),
                not_before=None,
            )
            .returning(
                UserRow.user_id,
                UserRow.run,
                UserRow.version_id,
                UserRow.attempts,
                BatchRow.tenant,
                BatchRow.submitted_at,
            )
        )
        taken = [
            Taken(
                hand=Hand(batch_id=batch_id, user_id=user, run=run),
                tenant=tenant,
                version_id=version_id,
                attempts=attempts,
                submitted_at=submitted,
            )
            for user, run, version_id, attempts, tenant, submitted in await self._session.execute(statement)
        ]
        return sorted(taken, key=lambda each: (each.version_id or "", each.hand.user_id))

    async def upcoming(self, batch_id: str, *, limit: int) -> list[tuple[str, str]]:
        """Return the users, with their versions, whose turn comes next."""
        query = (
            select(UserRow.user_id, UserRow.version_id)
            .where(UserRow.batch_id == batch_id, UserRow.state == UserState.WAITING, UserRow.not_before.is_(None))
            .order_by(UserRow.version_id, UserRow.user_id)
            .limit(limit)
        )
        return [(user, version_id or "") for user, version_id in await self._session.execute(query)]

    async def held_by(self, worker_id: str) -> set[Hand]:
        """Return everybody whom a worker has in hand."""
        query = select(UserRow.batch_id, UserRow.user_id, UserRow.run).where(
            UserRow.worker_id == worker_id, UserRow.state == UserState.HELD
        )
        found = await self._session.execute(query)
        return {Hand(batch_id=batch, user_id=user, run=run) for batch, user, run in found}

    async def being_erased(self, worker_id: str) -> set[Hand]:
        """Return whom a worker has in hand although they are being erased."""
        query = (
            select(UserRow.batch_id, UserRow.user_id, UserRow.run)
            .join(BatchRow, BatchRow.id == UserRow.batch_id)
            .join(ErasureRow, and_(ErasureRow.tenant == BatchRow.tenant, ErasureRow.user_id == UserRow.user_id))
            .where(UserRow.worker_id == worker_id, UserRow.state == UserState.HELD)
        )
        found = await self._session.execute(query)
        return {Hand(batch_id=batch, user_id=user, run=run) for batch, user, run in found}

    async def holder(self, batch_id: str, user: str) -> str | None:
        """Return the living worker that has a user in hand; None when none has."""
        query = (
            select(UserRow.worker_id)
            .join(WorkerRow, WorkerRow.id == UserRow.worker_id)
            .where(UserRow.batch_id == batch_id, UserRow.user_id == user, UserRow.state == UserState.HELD, alive())
        )
        return (await self._session.execute(query)).scalar_one_or_none()

    async def settle(
        self, hand: Hand, *, worker_id: str, state: UserState, sequence: int, values: Mapping[str, Any]
    ) -> bool:
        """Deliver what became of a user; False when they are not in this hand any more."""
        statement = (
            update(UserRow)
            .where(*_held(hand, worker_id))
            .values(state=state, sequence=sequence, worker_id=None, ended_at=func.clock_timestamp(), **values)
            .returning(UserRow.user_id)
        )
        return (await self._session.execute(statement)).first() is not None

    async def put_back(self, hand: Hand, *, worker_id: str, values: Mapping[str, Any]) -> bool:
        """Let a user wait for another turn; False when they are not in this hand any more."""
        statement = (
            update(UserRow)
            .where(*_held(hand, worker_id))
            .values(state=UserState.WAITING, worker_id=None, **values)
            .returning(UserRow.user_id)
        )
        return (await self._session.execute(statement)).first() is not None

    async def put_back_all(self, worker_id: str, *, but: Collection[Hand] = ()) -> int:
        """Let everybody wait again whom a living worker holds without knowing of them; return how many those were."""
        statement = update(UserRow).where(UserRow.worker_id == worker_id, UserRow.state == UserState.HELD)
        if but:
            keys = [(hand.batch_id, hand.user_id) for hand in but]
            statement = statement.where(tuple_(UserRow.batch_id, UserRow.user_id).not_in(keys))
        returned = statement.values(state=UserState.WAITING, worker_id=None).returning(UserRow.user_id)
        return len((await self._session.execute(returned)).all())

    async def orphan(self, worker_id: str, *, crashes: int) -> list[Hand]:
        """Take everybody from a worker that died, counting it; return those for whom it was one too many.

        The latter stay in the dead worker's hands, for the caller to deliver.
        """
        held = (UserRow.worker_id == worker_id, UserRow.state == UserState.HELD)
        counted = {"crashes": UserRow.crashes + 1}
        await self._session.execute(
            update(UserRow)
            .where(*held, UserRow.crashes + 1 < crashes)
            .values(state=UserState.WAITING, worker_id=None, **counted)
        )
        left = await self._session.execute(
            update(UserRow).where(*held).values(**counted).returning(UserRow.batch_id, UserRow.user_id, UserRow.run)
        )
        return [Hand(batch_id=batch, user_id=user, run=run) for batch, user, run in left]

    async def cancel(self, batch_id: str) -> int:
        """End everybody who is open; who has them in hand notices."""
        statement = (
            update(UserRow)
            .where(UserRow.batch_id == batch_id, UserRow.state.in_(OPEN))
            .values(state=UserState.CANCELED, worker_id=None, ended_at=func.clock_timestamp())
            .returning(UserRow.user_id)
        )
        return len((await self._session.execute(statement)).all())

    async def blank(self, batch_id: str, user: str) -> None:
        """Take a user's name out of a batch: who is open ends, what was delivered counts without a name."""
        is_open = UserRow.state.in_(OPEN)
        await self._session.execute(
            update(UserRow)
            .where(UserRow.batch_id == batch_id, UserRow.user_id == user)
            .values(
                user_id=func.concat("erased:", func.replace(cast(func.gen_random_uuid(), Text), "-", "")),
                state=case((is_open, UserState.CANCELED), else_=UserRow.state),
                worker_id=None,
                version_id=None,
                version=None,
                error=_ERASED,
                ended_at=func.coalesce(UserRow.ended_at, func.clock_timestamp()),
            )
        )

    # ----- looking

    async def counts(self, batch_ids: Sequence[str]) -> dict[str, dict[UserState, int]]:
        """Return how many users of each batch are in each state."""
        query = (
            select(UserRow.batch_id, UserRow.state, func.count())
            .where(UserRow.batch_id.in_(batch_ids))
            .group_by(UserRow.batch_id, UserRow.state)
        )
        found: dict[str, dict[UserState, int]] = {batch_id: {} for batch_id in batch_ids}
        for batch_id, state, count in await self._session.execute(query):
            found[batch_id][UserState(state)] = count
        return found

    async def failures(self, batch_ids: Sequence[str]) -> dict[str, dict[str, int]]:
        """Return how many users of each batch failed for each reason."""
        code = func.coalesce(UserRow.error["code"].astext, "erased")
        query = (
            select(UserRow.batch_id, code, func.count())
            .where(UserRow.batch_id.in_(batch_ids), UserRow.state == UserState.FAILED)
            .group_by(UserRow.batch_id, code)
            .order_by(func.count().desc())
        )
        found: dict[str, dict[str, int]] = {batch_id: {} for batch_id in batch_ids}
        for batch_id, reason, count in await self._session.execute(query):
            found[batch_id][reason] = count
        return found

    async def latest_ends(self, batch_id: str, *, limit: int) -> list[datetime]:
        """Return when the latest users came to an end who had been in hand."""
        query = (
            select(UserRow.ended_at)
            .where(UserRow.batch_id == batch_id, UserRow.state.in_(DELIVERED), UserRow.run > 0)
            .order_by(UserRow.sequence.desc())
            .limit(limit)
        )
        return [moment for moment in (await self._session.execute(query)).scalars() if moment is not None]

    async def results(self, batch_id: str, *, after: int, limit: int) -> list[UserRow]:
        """Return delivered users in the order of their delivery."""
        query = (
            select(UserRow)
            .where(UserRow.batch_id == batch_id, UserRow.sequence > after)
            .order_by(UserRow.sequence)
            .limit(limit)
        )
        return list((await self._session.execute(query)).scalars())

    async def touched(self, batch_id: str, *, after: str, limit: int) -> list[tuple[str, int]]:
        """Return users, by name, who were in hand at least once, and how often: results of theirs may lie somewhere."""
        query = (
            select(UserRow.user_id, UserRow.run)
            .where(UserRow.batch_id == batch_id, UserRow.run > literal(0), UserRow.user_id > after)
            .order_by(UserRow.user_id)
            .limit(limit)
        )
        return [(user, run) for user, run in await self._session.execute(query)]

    async def batches_of(self, tenant: str, user: str) -> list[str]:
        """Return the ids of every batch of the tenant that names the user."""
        query = (
            select(UserRow.batch_id)
            .join(BatchRow, BatchRow.id == UserRow.batch_id)
            .where(BatchRow.tenant == tenant, UserRow.user_id == user)
        )
        return list((await self._session.execute(query)).scalars())


def _held(hand: Hand, worker_id: str) -> tuple[Any, ...]:
    """Return the condition that a user is in just this hand: this worker's, for this time."""
    return (
        and_(UserRow.batch_id == hand.batch_id, UserRow.user_id == hand.user_id),
        and_(UserRow.state == UserState.HELD, UserRow.run == hand.run, UserRow.worker_id == worker_id),
    )
