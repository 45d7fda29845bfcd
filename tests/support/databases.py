"""A test's database under another name, where whoever asks for it finds none."""

from __future__ import annotations

import asyncpg

from tests.support.waiting import until


async def rename(server: asyncpg.Connection, old: str, new: str) -> None:
    """Give a database another name as soon as nobody is connected to it; who is, is cut off."""

    async def is_done() -> bool:
        await server.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = $1", old)
        try:
            await server.execute(f'alter database "{old}" rename to "{new}"')
        except asyncpg.ObjectInUseError:
            return False
        return True

    await until(is_done, within_seconds=60)
