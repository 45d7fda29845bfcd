"""Versions that are taken out: nobody gets one, who uses it ends, it goes, and may be asked for again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

from kit.errors import LorryError
from serving.engine.pool.erasure import Erasure
from serving.engine.pool.lease import LeaseBook
from serving.engine.pool.loads import Loads
from serving.engine.pool.memory import HostMemory
from serving.engine.pool.observer import Reason
from serving.engine.pool.store import Store
from serving.engine.single_flight import SingleFlight
from serving.errors import AdapterInUse


class Withdrawals:
    """Everybody who takes out a version at the same time shares one withdrawal."""

    def __init__(
        self,
        store: Store,
        *,
        book: LeaseBook,
        memory: HostMemory,
        loads: Loads,
        refuse: Callable[[str, LorryError], int],
    ) -> None:
        """Take versions out of `memory`; `refuse` turns away who waits for one, and says how many those were."""
        self._store = store
        self._book = book
        self._memory = memory
        self._loads = loads
        self._refuse = refuse
        self._flights: SingleFlight[str, Erasure] = SingleFlight()

    async def take_out(
        self, version_id: str, reason: LorryError, *, at_once: bool, wait_seconds: float | None, because: Reason
    ) -> Erasure:
        """Give no lease of a version, wait for those given, and overwrite it in memory.

        Raises:
            AdapterInUse: when leases are held after `wait_seconds`; nothing was erased, and leases are given again.
            AdapterNotLoaded: when a slot still holds weights afterwards.
        """
        leases = self._book.count(version_id)
        self._book.close(version_id, reason)
        if at_once:
            self._book.abort(version_id, reason)
        if (under_way := self._flights.join(version_id)) is not None:
            return await self._wait_for(under_way, version_id, wait_seconds=wait_seconds)
        return await self._flights.run(
            version_id, lambda: self._erase(version_id, reason, leases, wait_seconds=wait_seconds, because=because)
        )

    async def _wait_for(
        self, under_way: asyncio.Future[Erasure], version_id: str, *, wait_seconds: float | None
    ) -> Erasure:
        """Wait for the leases as long as this one said, and not as long as who began the withdrawal."""
        try:
            ended, _ = await asyncio.wait([under_way], timeout=wait_seconds)
            if not ended and self._book.count(version_id):
                raise self._in_use(version_id, wait_seconds)
            return await under_way
        finally:
            under_way.cancel()  # the withdrawal itself goes on

    async def _erase(
        self, version_id: str, reason: LorryError, leases: int, *, wait_seconds: float | None, because: Reason
    ) -> Erasure:
        began = monotonic()
        refused = self._refuse(version_id, reason)
        loads = self._loads.stop(version_id, reason)  # it has a lease, and nobody is left who would get one
        try:
            await self._until_free(version_id, wait_seconds=wait_seconds)
            waited_seconds = monotonic() - began
            self._memory.leaves(version_id, because)
            self._memory.unpin(version_id)
            removal = await self._store.erase(version_id)
            self._memory.abandon(version_id)  # not before: what the workers refuse to erase goes on taking room
            self._memory.in_slots.zeroed(version_id)
        finally:
            self._book.reopen(version_id)
        return Erasure(
            version_id=version_id,
            leases=leases - refused - loads,
            refused=refused,
            waited_seconds=waited_seconds,
            removal=removal,
        )

    async def _until_free(self, version_id: str, *, wait_seconds: float | None) -> None:
        try:
            async with asyncio.timeout(wait_seconds):
                await self._book.wait_until_free(version_id)
        except TimeoutError as exc:
            raise self._in_use(version_id, wait_seconds) from exc

    def _in_use(self, version_id: str, wait_seconds: float | None) -> AdapterInUse:
        count = self._book.count(version_id)
        waited = "" if wait_seconds is None else f" after {wait_seconds:g} s"
        return AdapterInUse(
            f"{count} requests still run on the adapter{waited}: wait longer, or abort them.", leases=count
        )
