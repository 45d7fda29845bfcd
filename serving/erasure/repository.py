"""The SQL of erasures. Nothing here commits; `None` means "there is none"."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import column, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from kit.canonical import sha256_json
from serving.erasure.models import ErasureRow, StepRow


@dataclass(frozen=True, kw_only=True)
class Task:
    """An erasure that has not ended: whom it is about."""

    id: str
    tenant: str
    user: str

    @property
    def pseudonym(self) -> str:
        """What stands in the user's place where a row has to stay, as costs have."""
        return f"erased:{self.id[1:]}"


@dataclass(frozen=True, kw_only=True)
class Backlog:
    """The erasures that have not ended: how many, since when the oldest, how long nobody has looked at one."""

    running: int
    oldest_seconds: float
    unattended_seconds: float


class ErasureRepository:
    """Reads and writes `erasure` and `erasure_step` through one session."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def begin(self, *, tenant: str, user: str, asked_by: str) -> ErasureRow:
        """Put the sign up, unless it is: once this transaction has committed, nothing of the user's is taken in."""
        values = {
            "id": f"e{uuid.uuid4().hex}",
            "tenant": tenant,
            "user_id": user,
            "subject": _subject(tenant, user),
            "asked_by": asked_by,
        }
        await self._session.execute(insert(ErasureRow).values(**values).on_conflict_do_nothing())
        query = select(ErasureRow).where(ErasureRow.tenant == tenant, ErasureRow.user_id == user)
        return (await self._session.execute(query)).scalars().one()

    async def is_running(self, *, tenant: str, user: str) -> bool:
        """Say whether the user is being erased."""
        query = select(ErasureRow.id).where(ErasureRow.tenant == tenant, ErasureRow.user_id == user)
        return (await self._session.execute(query)).first() is not None

    async def has_ended(self, *, tenant: str, user: str, within_seconds: float) -> bool:
        """Say whether an erasure of the user has ended so short a time ago."""
        since = func.now() - timedelta(seconds=within_seconds)
        mine = (ErasureRow.tenant == tenant, ErasureRow.subject == _subject(tenant, user), ErasureRow.ended_at > since)
        return (await self._session.execute(select(ErasureRow.id).where(*mine).limit(1))).first() is not None

    async def some_running(self, *, at_most: int) -> set[tuple[str, str]]:
        """Return (tenant, user) of everybody who is being erased, or of so many of them."""
        query = select(ErasureRow.tenant, ErasureRow.user_id).where(ErasureRow.user_id.is_not(None)).limit(at_most)
        return {(tenant, user) for tenant, user in await self._session.execute(query) if user is not None}

    async def some_of(self, tenant: str, users: Collection[str]) -> set[str]:
        """Return which of a tenant's users are being erased."""
        query = select(ErasureRow.user_id).where(ErasureRow.tenant == tenant, ErasureRow.user_id.in_(users))
        return {user for user in await self._session.scalars(query) if user is not None}

    async def latest(self, *, tenant: str, user: str) -> ErasureRow | None:
        """Return the erasure of this user that runs, or that was asked for last."""
        mine = (ErasureRow.tenant == tenant, ErasureRow.subject == _subject(tenant, user))
        query = select(ErasureRow).where(*mine).order_by(ErasureRow.asked_at.desc(), ErasureRow.id).limit(1)
        return (await self._session.execute(query)).scalars().one_or_none()

    async def running(self) -> list[Task]:
        """Return every erasure that has not ended, the oldest first."""
        query = select(ErasureRow).where(ErasureRow.user_id.is_not(None)).order_by(ErasureRow.asked_at, ErasureRow.id)
        return [
            Task(id=row.id, tenant=row.tenant, user=row.user_id)
            for row in (await self._session.execute(query)).scalars()
            if row.user_id is not None
        ]

    async def backlog(self) -> Backlog:
        """Return what is left to do, of all tenants; by the database's clock."""
        steps = select(func.max(StepRow.looked_at)).where(StepRow.erasure_id == ErasureRow.id).scalar_subquery()
        seen_at = func.greatest(ErasureRow.asked_at, steps)  # of nothing there is no greatest, and that is passed over
        oldest, unattended = (
            func.coalesce(func.max(func.extract("epoch", func.clock_timestamp() - moment)), 0)
            for moment in (ErasureRow.asked_at, seen_at)
        )
        query = select(func.count(), oldest, unattended).select_from(ErasureRow).where(ErasureRow.user_id.is_not(None))
        found = (await self._session.execute(query)).one()
        return Backlog(running=found[0], oldest_seconds=float(found[1]), unattended_seconds=float(found[2]))

    async def get(self, erasure_id: str) -> ErasureRow | None:
        """Return one erasure."""
        return await self._session.get(ErasureRow, erasure_id, populate_existing=True)

    async def steps(self, erasure_id: str) -> dict[str, StepRow]:
        """Return the stores whose turn has come, by name."""
        query = select(StepRow).where(StepRow.erasure_id == erasure_id).execution_options(populate_existing=True)
        return {row.store: row for row in (await self._session.execute(query)).scalars()}

    async def begin_step(self, erasure_id: str, store: str, *, found: Mapping[str, int]) -> None:
        """Write down what lies in a store before the first of it is touched; later calls change nothing."""
        values = {
            "erasure_id": erasure_id,
            "store": store,
            "found": dict(found),
            "waits_for": [],
            "told": [],
            "attempts": 0,
        }
        await self._session.execute(insert(StepRow).values(**values).on_conflict_do_nothing())

    async def note_step(
        self, erasure_id: str, store: str, *, waits_for: Sequence[str], told: Sequence[str] = ()
    ) -> None:
        """Write down what an attempt has come to: done when nothing is waited for."""
        mine = (StepRow.erasure_id == erasure_id, StepRow.store == store)
        values = {
            "waits_for": list(waits_for),
            "told": list(told),
            "attempts": StepRow.attempts + 1,
            "looked_at": func.clock_timestamp(),
            "ended_at": None if waits_for else func.clock_timestamp(),
        }
        await self._session.execute(update(StepRow).where(*mine).values(**values))

    async def finish(self, erasure_id: str) -> None:
        """Take the sign down: what is left of the erasure no longer says whom it was about."""
        statement = update(ErasureRow).where(ErasureRow.id == erasure_id, ErasureRow.user_id.is_not(None))
        await self._session.execute(statement.values(user_id=None, ended_at=func.clock_timestamp()))

    async def close_intake(self, *, tenant: str, user: str = "") -> None:
        """Wait until every transaction has ended that began to write before the sign was up.

        Args:
            tenant: whose user.
            user: who is erased; empty = wait for those that write rows of many of the tenant's users.

        Raises:
            DatabaseUnavailable: one lasts longer than a lock is waited for.
        """
        await self._session.execute(select(func.pg_advisory_xact_lock(func.erasure_lock(tenant, user))))

    async def traces(self, *, tenant: str, user: str) -> dict[str, int]:
        """Return how many rows name the user, by table: of every table that has a `user_id`, whoever's it is."""
        traces = func.user_traces(tenant, user).table_valued(column("place"), column("held"))
        return {row.place: row.held for row in await self._session.execute(select(traces))}

    async def try_hold(self, erasure_id: str) -> bool:
        """Say whether this connection alone advances the erasure now; it does until `let_go`, or until it is cut."""
        return bool((await self._session.execute(select(func.pg_try_advisory_lock(_hold(erasure_id))))).scalar_one())

    async def let_go(self, erasure_id: str) -> None:
        """Let others advance the erasure."""
        await self._session.execute(select(func.pg_advisory_unlock(_hold(erasure_id))))


def _hold(erasure_id: str) -> object:
    return func.hashtextextended(f"lorry erasure held\n{erasure_id}", 0)


def _subject(tenant: str, user: str) -> str:
    return sha256_json([tenant, user])
