"""PostgreSQL: one engine per process, one transaction per unit of work.

Services and repositories flush; only `Database.transaction` commits. SQL is written in
`repository.py` files; tables in each room's `models.py` on the shared `Base`.

What PostgreSQL says no to is translated here, once, by its SQLSTATE: what another attempt may cure is
`DatabaseUnavailable`, what no attempt can store is `InvalidValue`; the rest is a mistake of ours and rises as it is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from sqlalchemy import ExceptionContext, MetaData, event, text
from sqlalchemy.exc import DBAPIError, InterfaceError, InvalidatePoolError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from kit.errors import BeingErased, DatabaseUnavailable, InvalidValue, KitError
from kit.settings import DatabaseSettings

# The network's share, on top of what the server allows a statement: only a server that is gone takes longer.
_GRACE_SECONDS = 5.0
_MAX_CONNECT_SECONDS = 60.0
# A connection that closed is seen without asking; only a silent network needs a question, and only after a pause.
_TRUSTED_IDLE_SECONDS = 30.0
# Connection lost, serialisation and deadlock, out of resources, lock or statement time-out, shutdown.
_PASSING = ("08", "40", "53", "55P03", "57")
# Wrong user or password; no such database.
_REFUSED = ("28", "3D")
# Data exceptions (a number out of range, a NUL) and program limits (a value too long for an index).
_UNSTORABLE = ("22", "54")
# Raised by the triggers that guard tables while a user is being erased.
_ERASING = "LE409"


class Base(DeclarativeBase):
    """Every table of Lorry; constraint names are derived so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Database:
    """A pool of connections to one PostgreSQL database."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self.settings = settings
        # The pool's own queue lets newcomers overtake who was just woken, so that under load some wait for seconds;
        # a semaphore serves in order.
        self._turns = asyncio.Semaphore(settings.database_pool_size)
        self.engine: AsyncEngine = create_async_engine(
            settings.database_url,
            pool_size=settings.database_pool_size,
            max_overflow=0,
            pool_use_lifo=True,  # the connection used last is the likeliest to be alive; the others may idle out
            hide_parameters=True,  # an error's text reaches logs, a statement's values must not
            pool_timeout=settings.database_timeout_seconds,
            connect_args={
                "timeout": min(settings.database_timeout_seconds, _MAX_CONNECT_SECONDS),
                "command_timeout": settings.database_timeout_seconds + _GRACE_SECONDS,
                "server_settings": {
                    "statement_timeout": _milliseconds(settings.database_timeout_seconds),
                    "lock_timeout": _milliseconds(settings.database_lock_timeout_seconds),
                    "idle_in_transaction_session_timeout": _milliseconds(settings.database_idle_transaction_seconds),
                },
            },
        )
        event.listen(self.engine.sync_engine, "checkin", _remember)
        event.listen(self.engine.sync_engine, "checkout", _refuse_dead)
        event.listen(self.engine.sync_engine, "handle_error", _name_silence)
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False)
        readers = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._reading_sessions = async_sessionmaker(readers, expire_on_commit=False)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """Yield a session; commit when the block ends, roll back when it raises.

        Raises:
            DatabaseUnavailable: when PostgreSQL cannot be reached, drops the connection or keeps one waiting.
            InvalidValue: when a value cannot be stored.
            BeingErased: when a row belongs to a user who is being erased.
        """
        try:
            async with self._turn(), self._sessions() as session, session.begin():
                await self._connect(session)
                yield session
        except DBAPIError as exc:
            if (translated := _translate(exc)) is not None:
                raise translated from exc
            raise

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncSession]:
        """Yield a session for statements that only read, each of which sees what is committed when it begins.

        Costs one round trip a statement; a transaction takes two more.

        Raises:
            DatabaseUnavailable: when PostgreSQL cannot be reached, drops the connection or keeps one waiting.
            InvalidValue: when a value is one that no row could hold.
        """
        try:
            async with self._turn(), self._reading_sessions() as session:
                await self._connect(session)
                yield session
        except DBAPIError as exc:
            if (translated := _translate(exc)) is not None:
                raise translated from exc
            raise

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Wait, in order, until one of the pool's connections is free."""
        try:
            async with asyncio.timeout(self.settings.database_timeout_seconds):
                await self._turns.acquire()
        except TimeoutError as exc:
            raise DatabaseUnavailable("every connection to PostgreSQL is taken") from exc
        try:
            yield
        finally:
            self._turns.release()

    async def _connect(self, session: AsyncSession) -> None:
        """Take a connection now, so that the OSError of a refused one is told from those of the caller's block."""
        try:
            await session.connection()
        except (OSError, PoolTimeout) as exc:
            raise DatabaseUnavailable(f"PostgreSQL did not answer: {type(exc).__name__}") from exc

    async def check(self) -> None:
        """Raise `DatabaseUnavailable` unless the database answers."""
        async with self.reading() as session:
            await session.execute(text("select 1"))

    async def close(self) -> None:
        """Close every pooled connection."""
        await self.engine.dispose()


def _translate(exc: DBAPIError) -> KitError | None:
    """Return what the caller may be told; None for a mistake of ours."""
    cause = exc.orig.__cause__ if exc.orig is not None else None
    state = str(getattr(cause, "sqlstate", None) or "")
    if state == _ERASING:
        return BeingErased()
    if isinstance(cause, asyncpg.DataError) or state.startswith(_UNSTORABLE):
        return InvalidValue()
    if state.startswith(_REFUSED):
        return DatabaseUnavailable(f"PostgreSQL refused the connection: {type(cause).__name__}")
    unanswered = exc.connection_invalidated or isinstance(exc, InterfaceError | OperationalError)
    if unanswered or state.startswith(_PASSING):
        return DatabaseUnavailable(f"PostgreSQL did not answer: {type(cause or exc).__name__}")
    return None


def _name_silence(context: ExceptionContext) -> None:
    """Tell a server that never answers from a time-out of the caller's own."""
    if isinstance(context.original_exception, TimeoutError | OSError):
        silent = DatabaseUnavailable(f"PostgreSQL did not answer: {type(context.original_exception).__name__}")
        context.chained_exception = silent


def _remember(connection: Any, record: Any) -> None:
    record.info["idle_since"] = time.monotonic()


def _refuse_dead(connection: Any, record: Any, proxy: Any) -> None:
    """Have the pool replace a connection that has died while it was idle, and all others of its age."""
    idle_seconds = time.monotonic() - record.info.get("idle_since", time.monotonic())
    try:
        if connection.driver_connection.is_closed():
            raise InvalidatePoolError
        if idle_seconds > _TRUSTED_IDLE_SECONDS:
            connection.ping()
    except (asyncpg.PostgresError, connection.dbapi.Error, OSError, TimeoutError) as exc:
        raise InvalidatePoolError from exc


def _milliseconds(seconds: float) -> str:
    return str(max(1, round(seconds * 1000)))
