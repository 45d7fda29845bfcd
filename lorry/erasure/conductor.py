"""Walks the stores of every erasure until each is done. Killed at any point, whoever comes next goes on.

All that is known of an erasure lies in its rows: a store whose row has no end is done again. One process advances an
erasure at a time; a lock that ends with its connection says which.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress

from kit.background import attempt
from kit.database import Database
from lorry.erasure.stores import Store, vacuum
from lorry.erasure.turns import Turns
from serving.erasure.desk import report_of
from serving.erasure.report import STORES, ErasureReport
from serving.erasure.repository import ErasureRepository, Task

_log = logging.getLogger(__name__)


class Conductor:
    """Advances erasures; any number of processes may have one."""

    def __init__(self, database: Database, stores: Sequence[Store], *, poll_seconds: float = 2.0) -> None:
        """Walk `stores`, and look for something to do every so many seconds.

        Raises:
            ValueError: they are not the stores of the report, or one's turn would come before that of what it needs.
        """
        if tuple(each.name for each in stores) != STORES:
            raise ValueError("the stores differ from those of the report")
        for place, store in enumerate(stores):
            if not set(store.after) <= set(STORES[:place]):
                raise ValueError(f"{store.name} needs a store that comes later")
        self._database = database
        self._stores = stores
        self._poll_seconds = poll_seconds
        self._turns = Turns()

    async def run(self, stop: asyncio.Event) -> None:
        """Advance what is there to be advanced, until told to stop; what goes wrong, whatever it is, is tried again."""
        while not stop.is_set():
            await attempt(self.advance_all, of="conductor of erasures")
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self._poll_seconds)

    async def advance_all(self) -> None:
        """Advance the erasures whose turn it is by as much as can be done now: all, unless a tenant has very many."""
        async with self._database.reading() as session:
            running = await ErasureRepository(session).running()
        for task in self._turns.next(running):
            await self.advance(task)

    async def advance(self, task: Task) -> ErasureReport:
        """Advance one erasure by as much as can be done now, unless another process does; return how far it is.

        Raises:
            DatabaseUnavailable: what was done until then is done.
        """
        async with self._database.reading() as holding:
            hold = ErasureRepository(holding)
            if await hold.try_hold(task.id):
                try:
                    await self._walk(task)
                finally:
                    await hold.let_go(task.id)
        return await self.report(task.id)

    async def report(self, erasure_id: str) -> ErasureReport:
        """Return how far an erasure is, which must exist."""
        async with self._database.reading() as session:
            repository = ErasureRepository(session)
            row = await repository.get(erasure_id)
            assert row is not None
            return report_of(row, await repository.steps(erasure_id))

    async def _walk(self, task: Task) -> None:
        async with self._database.reading() as session:
            repository = ErasureRepository(session)
            row, steps = await repository.get(task.id), await repository.steps(task.id)
        if row is None or row.user_id is None:
            return
        done = {name for name, step in steps.items() if step.ended_at is not None}
        for store in self._stores:
            if store.name not in done and done.issuperset(store.after) and await self._take_step(store, task):
                done.add(store.name)
        if done.issuperset(STORES):
            await self._finish(task)

    async def _take_step(self, store: Store, task: Task) -> bool:
        """Do one store, as far as it goes now; say whether nothing is left in it."""
        try:
            async with self._database.reading() as session:
                begun = store.name in await ErasureRepository(session).steps(task.id)
            if not begun:
                found = await store.found(task)
                async with self._database.transaction() as session:
                    await ErasureRepository(session).begin_step(task.id, store.name, found=found)
            waits_for = await store.erase(task)
            told = await store.told(task) if not waits_for else []
        except Exception as exc:  # one store's trouble, whatever it is, must not keep the others from their turn
            _log.warning("an erasure waits for its store %s: %s", store.name, type(exc).__name__)
            waits_for, told = [f"it failed, and is tried again: {type(exc).__name__}"], []
        async with self._database.transaction() as session:
            repository = ErasureRepository(session)
            await repository.begin_step(task.id, store.name, found={})
            await repository.note_step(task.id, store.name, waits_for=waits_for, told=told)
        return not waits_for

    async def _finish(self, task: Task) -> None:
        """Take the sign down; the row that named the user goes the way of the others."""
        async with self._database.transaction() as session:
            await ErasureRepository(session).finish(task.id)
        await vacuum(self._database, "erasure")
        _log.info("erasure %s has ended", task.id)
