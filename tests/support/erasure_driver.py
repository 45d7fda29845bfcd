"""Advances an erasure in processes that are killed, each after it has done one store and before it could say so.

``python -m tests.support.erasure_driver <environment as JSON> <home> <user> <store> …`` forks one process a store; each
kills itself with SIGKILL. The first prints nothing, and so do the others: what they did is in the database.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from kit.database import Database
from kit.settings import DatabaseSettings
from lorry.erasure.conductor import Conductor
from lorry.erasure.stores import Rooms, Store, stores
from lorry.home import Home
from registry.client import RegistryClient
from serving.erasure.desk import ErasureDesk
from serving.erasure.repository import ErasureRepository, Task
from training.erasure.erasure import TrainingErasure
from training.writers.settings import WriterSettings


class Deadly:
    """A store under which its process dies when it has done its work, or when it was all done, as ``finish``."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.name, self.after = store.name, store.after

    async def found(self, task: Task) -> Mapping[str, int]:
        """Count, as the store does."""
        return await self._store.found(task)

    async def erase(self, task: Task) -> list[str]:
        """Erase, and die."""
        await self._store.erase(task)
        os.kill(os.getpid(), signal.SIGKILL)
        return []

    async def told(self, task: Task) -> list[str]:
        """Say how it went, as the store does."""
        return await self._store.told(task)


async def advance(options: dict[str, str], home: Path, user: str, deadly: str) -> None:
    """Advance the user's erasure until the store named `deadly` is done."""
    database = Database(DatabaseSettings(database_url=options["database_url"]))
    writers = WriterSettings()
    async with RegistryClient(url=options["registry_url"], token=options["registry_token"], actor="test") as registry:
        rooms = Rooms(
            database=database,
            registry=registry,
            trainings=TrainingErasure(database, writers=writers),
            writers=writers,
            home=Home.open(home),
        )
        wrapped: list[Store] = [Deadly(each) if each.name == deadly else each for each in stores(rooms)]
        report = await ErasureDesk(database).ask("default", user, asked_by="test")
        if deadly == "finish":
            ErasureRepository.finish = _die  # type: ignore[method-assign]
        conductor = Conductor(database, wrapped)
        async with asyncio.timeout(60):
            while True:  # until PostgreSQL has noticed that the one before is dead, which held the erasure
                await conductor.advance(Task(id=report.id, tenant="default", user=user))
                await asyncio.sleep(0.05)


async def _die(self: ErasureRepository, erasure_id: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Fork a process a store, one after another; exit code 1 when one of them was not killed."""
    options, home, user = json.loads(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]

    for deadly in sys.argv[4:]:
        pid = os.fork()
        if pid == 0:
            try:
                asyncio.run(advance(options, home, user, deadly))
            finally:
                os._exit(9)
        _, status = os.waitpid(pid, 0)
        if not os.WIFSIGNALED(status):
            sys.exit(f"the process of {deadly} was not killed: {status}")


if __name__ == "__main__":
    main()
