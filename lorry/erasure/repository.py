"""The SQL of homes, and of having PostgreSQL let go of dead rows. Nothing here commits."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, literal, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from lorry.erasure.models import HomeErasureRow, HomeRow
from serving.erasure.models import ErasureRow
from serving.erasure.repository import Task

# Every table that a row of a user's was deleted from or changed in; those of DBOS as well, where workers have run.
_TABLES = text(
    "select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace"
    " where c.relkind = 'r' and (n.nspname = current_schema() or n.nspname = 'dbos') order by 1"
)
_DEAD = text(
    "select coalesce(sum(n_dead_tup), 0) from pg_stat_user_tables where schemaname in (current_schema(), 'dbos')"
)

# A table that has become empty keeps the samples of when it was not; PostgreSQL 18 and newer can be told to drop them.
_CAN_CLEAR = text("select to_regproc('pg_clear_attribute_stats') is not null")
_CLEAR = text(
    "select pg_clear_attribute_stats(s.schemaname, s.tablename, s.attname, s.inherited) from pg_stats s"
    " join pg_namespace n on n.nspname = s.schemaname"
    " join pg_class c on c.relnamespace = n.oid and c.relname = s.tablename"
    " where s.schemaname in (current_schema(), 'dbos') and c.reltuples = 0"
)


@dataclass(frozen=True, kw_only=True)
class WaitingHome:
    """A home that has not cleared itself."""

    home_id: str
    host: str | None
    seen_at: datetime | None


class HomeRepository:
    """Reads and writes `home` and `home_erasure` through one session."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def visit(self, home_id: str, *, host: str) -> datetime | None:
        """Write down that the home is in use; return when it was before, None for one that is new."""
        before = await self._session.scalar(select(HomeRow.seen_at).where(HomeRow.id == home_id))
        values = {"host": host, "seen_at": func.clock_timestamp()}
        statement = insert(HomeRow).values(id=home_id, **values)
        await self._session.execute(statement.on_conflict_do_update(index_elements=["id"], set_=values))
        return before

    async def ask_homes(self, erasure_id: str) -> None:
        """Ask every home that is known to clear itself; those that were asked stay asked."""
        homes = select(literal(erasure_id), HomeRow.id)
        await self._session.execute(
            insert(HomeErasureRow).from_select(["erasure_id", "home_id"], homes).on_conflict_do_nothing()
        )

    async def asked(self, home_id: str) -> list[Task]:
        """Return the erasures that the home has not obeyed yet."""
        query = (
            select(ErasureRow)
            .join(HomeErasureRow, HomeErasureRow.erasure_id == ErasureRow.id)
            .where(HomeErasureRow.home_id == home_id, HomeErasureRow.ended_at.is_(None))
            .order_by(ErasureRow.asked_at)
        )
        return [
            Task(id=row.id, tenant=row.tenant, user=row.user_id)
            for row in (await self._session.execute(query)).scalars()
            if row.user_id is not None
        ]

    async def end(self, erasure_id: str, home_id: str, *, outcome: str, removed: int = 0) -> bool:
        """Write down that a home is cleared, or gone; False when it was not asked, or is done."""
        mine = (HomeErasureRow.erasure_id == erasure_id, HomeErasureRow.home_id == home_id)
        statement = (
            update(HomeErasureRow)
            .where(*mine, HomeErasureRow.ended_at.is_(None))
            .values(outcome=outcome, removed=removed, ended_at=func.clock_timestamp())
            .returning(HomeErasureRow.home_id)
        )
        return (await self._session.execute(statement)).first() is not None

    async def waiting(self, erasure_id: str) -> list[WaitingHome]:
        """Return the homes that have not cleared themselves."""
        query = (
            select(HomeErasureRow.home_id, HomeRow.host, HomeRow.seen_at)
            .outerjoin(HomeRow, HomeRow.id == HomeErasureRow.home_id)
            .where(HomeErasureRow.erasure_id == erasure_id, HomeErasureRow.ended_at.is_(None))
            .order_by(HomeErasureRow.home_id)
        )
        return [WaitingHome(home_id=row[0], host=row[1], seen_at=row[2]) for row in await self._session.execute(query)]

    async def ended(self, erasure_id: str) -> list[str]:
        """Return what became of every home that was asked, as sentences."""
        query = (
            select(HomeErasureRow, HomeRow.host)
            .outerjoin(HomeRow, HomeRow.id == HomeErasureRow.home_id)
            .where(HomeErasureRow.erasure_id == erasure_id, HomeErasureRow.ended_at.is_not(None))
            .order_by(HomeErasureRow.home_id)
        )
        return [
            f"home {row.home_id} on {host or 'an unknown machine'}: "
            + (f"{row.removed} files removed" if row.outcome == "cleared" else "declared gone")
            for row, host in await self._session.execute(query)
        ]

    async def erased_since(self, moment: datetime | None) -> dict[tuple[str, str], datetime]:
        """Return whose erasure has ended since a moment, by tenant and digest, and when."""
        query = select(ErasureRow.tenant, ErasureRow.subject, func.max(ErasureRow.ended_at)).where(
            ErasureRow.ended_at.is_not(None)
        )
        if moment is not None:
            query = query.where(ErasureRow.ended_at > moment)
        rows = await self._session.execute(query.group_by(ErasureRow.tenant, ErasureRow.subject))
        return {(tenant, subject): ended_at for tenant, subject, ended_at in rows if ended_at}


class Vacuum:
    """Lets PostgreSQL take dead rows out of its pages and of its statistics; needs a session without a transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def run(self, *tables: str) -> int:
        """Vacuum and analyze the named tables, or all; return how many dead rows others' transactions still hold."""
        names = list(tables) or list((await self._session.execute(_TABLES)).scalars())
        for name in names:
            await self._session.execute(text(f"vacuum (analyze) {name}"))
        if (await self._session.execute(_CAN_CLEAR)).scalar_one():
            await self._session.execute(_CLEAR)
        return int((await self._session.execute(_DEAD)).scalar_one())
