"""A LORRY_HOME obeys erasures: it is known by an id of its own, and clears itself whenever a command uses it.

One that was away, or that nobody knew of, compares its users with the tombstones when it is used again.
"""

from __future__ import annotations

import logging
import socket

from sqlalchemy.exc import SQLAlchemyError

from kit.canonical import sha256_json
from kit.database import Database
from kit.errors import LorryError
from lorry.erasure.files import UserFiles, owners
from lorry.erasure.repository import HomeRepository
from lorry.home import DISK_ID, Home
from training.writers.settings import WriterSettings

_log = logging.getLogger(__name__)


async def visit(home: Home, database: Database) -> None:
    """Have a home that holds users' files known, and cleared of those who were erased meanwhile.

    A database that is away, or older than this, is no obstacle: the next visit does it.
    """
    if not home.has_secret(DISK_ID) and next(owners(home), None) is None:
        return
    try:
        async with database.transaction() as session:
            before = await HomeRepository(session).visit(home.disk_id, host=socket.gethostname())
            ended = await HomeRepository(session).erased_since(before)
        for tenant, user, changed_at in list(owners(home)):
            ended_at = ended.get((tenant, sha256_json([tenant, user])))
            if ended_at is not None and changed_at < ended_at.timestamp():
                await UserFiles(home, tenant=tenant, user=user).clear(None)
        await obey(home, database, writers=None)
    except (LorryError, SQLAlchemyError, OSError) as exc:
        _log.warning("erasures could not be obeyed here: %s", type(exc).__name__)


async def obey(home: Home, database: Database, *, writers: WriterSettings | None) -> list[str]:
    """Clear a home of everybody who is being erased; return what is waited for here.

    Raises:
        DatabaseUnavailable, OSError: not everything was done; again finishes it.
    """
    async with database.reading() as session:
        asked = await HomeRepository(session).asked(home.disk_id)
    waits_for: list[str] = []
    for task in asked:
        removed, waits = await UserFiles(home, tenant=task.tenant, user=task.user).clear(writers)
        waits_for += waits
        if not waits:
            async with database.transaction() as session:
                await HomeRepository(session).end(task.id, home.disk_id, outcome="cleared", removed=removed)
    return waits_for
