"""How a command that goes on for long bears with a database that is away for a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from kit.errors import DatabaseUnavailable
from lorry.context import Context, tell

T = TypeVar("T")
PATIENCE_SECONDS = 300.0
_PAUSE_SECONDS = 1.0


@asynccontextmanager
async def kept(context: Context) -> AsyncIterator[None]:
    """While the block runs, start parts of this machine again that end by themselves, and say so."""
    keeper = asyncio.create_task(context.stack.keep())
    try:
        yield
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)


async def patiently(work: Callable[[], Awaitable[T]], *, then: str, patience_seconds: float = PATIENCE_SECONDS) -> T:
    """Do something again until the database answers, and say once that it is waited for.

    Args:
        work: what asks the database.
        then: what a person can type to go on, should it not come back.
        patience_seconds: how long it may be away.

    Raises:
        DatabaseUnavailable: it was away for longer; the message ends with `then`.
    """
    gone: float | None = None
    while True:
        try:
            found = await work()
        except DatabaseUnavailable as exc:
            if gone is None:
                gone = time.monotonic()
                tell(f"{exc.message}; waiting for it …")
            elif time.monotonic() - gone > patience_seconds:
                raise DatabaseUnavailable(f"{exc.message}, for {patience_seconds:.0f} s; {then}") from exc
            await asyncio.sleep(min(_PAUSE_SECONDS, patience_seconds))
        else:
            if gone is not None:
                tell(f"the database answers again, after {time.monotonic() - gone:.0f} s")
            return found
