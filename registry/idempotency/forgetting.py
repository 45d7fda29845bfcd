"""Forgetting answers that no request can ask for again, in the background of every registry."""

from __future__ import annotations

from kit.database import Database
from registry.idempotency.repository import KEPT
from registry.lifecycle.upkeep.repository import UpkeepRepository

EVERY_SECONDS = 3600.0
_AT_ONCE = 1000


async def forget_old(database: Database) -> None:
    """Forget every key that is too old, some at a time.

    Raises:
        DatabaseUnavailable: when the database does not answer; what was forgotten stays so.
    """
    gone = _AT_ONCE
    while gone == _AT_ONCE:
        async with database.transaction() as session:
            gone = await UpkeepRepository(session).forget_requests(older_seconds=KEPT.total_seconds(), limit=_AT_ONCE)
