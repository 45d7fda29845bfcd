"""PostgreSQL: one engine per process, one transaction per unit of work.

Services and repositories flush; only `Database.transaction` commits. SQL is written in
`repository.py` files; tables in each room's `models.py` on the shared `Base`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import MetaData, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from kit.errors import DatabaseUnavailable
from kit.settings import DatabaseSettings


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
        self.engine: AsyncEngine = create_async_engine(
            settings.database_url,
            pool_size=settings.database_pool_size,
            max_overflow=0,
            pool_pre_ping=True,
            hide_parameters=True,  # an error's text reaches logs, a statement's values must not
            pool_timeout=settings.database_timeout_seconds,
            connect_args={
                "timeout": settings.database_timeout_seconds,
                "server_settings": {"statement_timeout": str(int(settings.database_timeout_seconds * 1000))},
            },
        )
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """Yield a session; commit when the block ends, roll back when it raises.

        Raises:
            DatabaseUnavailable: when PostgreSQL cannot be reached or drops the connection.
        """
        try:
            async with self._sessions() as session, session.begin():
                await self._connect(session)
                yield session
        except DBAPIError as exc:
            if exc.connection_invalidated or isinstance(exc, InterfaceError | OperationalError):
                raise DatabaseUnavailable(f"PostgreSQL did not answer: {type(exc).__name__}") from exc
            raise

    async def _connect(self, session: AsyncSession) -> None:
        """Take a connection now, so that the OSError of a refused one is told from those of the caller's block."""
        try:
            await session.connection()
        except (OSError, PoolTimeout) as exc:
            raise DatabaseUnavailable(f"PostgreSQL did not answer: {type(exc).__name__}") from exc

    async def check(self) -> None:
        """Raise `DatabaseUnavailable` unless the database answers."""
        async with self.transaction() as session:
            await session.execute(text("select 1"))

    async def close(self) -> None:
        """Close every pooled connection."""
        await self.engine.dispose()
