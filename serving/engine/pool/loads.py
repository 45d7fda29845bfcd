"""Adapters on their way into host memory: each once for everybody who asks, urgent as soon as one of them is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kit.errors import LorryError
from serving.engine.pool.lease import LeaseBook
from serving.engine.pool.memory import HostMemory
from serving.engine.pool.observer import Found, Observer
from serving.engine.pool.store import Store
from serving.engine.single_flight import SingleFlight
from serving.engine.urgency import Urgency
from serving.errors import TierFull


class Loads:
    """Who asked may go away: a load goes on, until it ends or is stopped because its version must not be served."""

    def __init__(
        self,
        store: Store,
        *,
        memory: HostMemory,
        book: LeaseBook,
        observer: Observer,
        on_ended: Callable[[str], None] = lambda version_id: None,
    ) -> None:
        """Load from `store` into `memory`, each load with a lease of its own in `book`; `on_ended` hears of its end."""
        self._store = store
        self._on_ended = on_ended
        self._memory = memory
        self._book = book
        self._observer = observer
        self._flights: SingleFlight[str, Found] = SingleFlight()
        self._urgencies: dict[str, Urgency] = {}
        self._displacing: set[str] = set()
        self._stops: dict[str, Callable[[LorryError], None]] = {}

    def __contains__(self, version_id: str) -> bool:
        return version_id in self._flights

    def after(self, version_id: str, act: Callable[[], None]) -> None:
        """Call `act` when no load of the version is under way: now, or as soon as it has ended."""
        self._flights.after(version_id, act)

    async def bring(self, version_id: str, *, urgent: bool, displace: bool = True) -> Found:
        """Install and stage a version, or join who does.

        Args:
            version_id: what to bring.
            urgent: whether it goes before what is not.
            displace: whether others may have to leave for it; whoever has a lease on it may ask that.

        Raises:
            LorryError: why it cannot be had.
        """
        urgency = self._urgencies.setdefault(version_id, Urgency())
        if urgent:
            urgency.rise()
        if displace:
            self._displacing.add(version_id)
        try:
            return await self._flights.run(version_id, lambda: self._load(version_id, urgency))
        finally:
            if version_id not in self._flights:
                self._forget(version_id)

    def stop(self, version_id: str, reason: LorryError) -> bool:
        """Let the load of a version end with `reason`; False when none is under way."""
        if (stop := self._stops.get(version_id)) is None:
            return False
        stop(reason)
        return True

    async def _load(self, version_id: str, urgency: Urgency) -> Found:
        if version_id in self._memory:
            return "host"
        lease = self._book.lease(version_id)
        self._memory.hold(version_id)
        try:
            with self._observer.loading(version_id) as load, self._stoppable(version_id):
                if not await self._bring_in(version_id, urgency):  # now it is known what it takes
                    await self._bring_in(version_id, urgency, is_last=True)
            self._memory.arrived(version_id)
        except BaseException:
            self._store.abandon(version_id)
            self._memory.abandon(version_id)
            raise
        finally:
            self._forget(version_id)
            self._memory.let_go(version_id)
            lease.release()
            self._on_ended(version_id)
        return load.source

    async def _bring_in(self, version_id: str, urgency: Urgency, *, is_last: bool = False) -> bool:
        """Install and stage a version, and count it with what it takes; False = others hold what exceeds the guess.

        Raises:
            LorryError: why it cannot be had; TierFull, when this `is_last` or nobody waits for room.
        """
        await self._install(version_id, urgency)
        size_bytes = await self._store.stage(version_id, urgent=urgency)
        try:
            self._require_modest(version_id, size_bytes)
            await self._memory.displace(self._memory.tier.make_room(version_id, size_bytes))
        except BaseException as exc:
            await self._store.drop(version_id)
            self._memory.abandon(version_id)
            if is_last or not isinstance(exc, TierFull) or not self._is_wanted(version_id):
                raise
            return False
        return True

    def _is_wanted(self, version_id: str) -> bool:
        """Say whether anybody besides the load has a lease, and may wait for room."""
        return self._book.count(version_id) > 1

    def _require_modest(self, version_id: str, size_bytes: int) -> None:
        if version_id not in self._displacing and self._memory.tier.leaving(version_id, size_bytes):
            raise TierFull("The engine's host memory has no room for the adapter but what others have.")

    async def _install(self, version_id: str, urgency: Urgency) -> None:
        """Begin to fetch a version, and make room for it meanwhile; what has to wait for room is not fetched yet."""
        size_bytes = await self._store.install(version_id, urgent=urgency)
        self._book.require_open(version_id)
        self._require_modest(version_id, size_bytes)
        leaving = self._memory.room.take(version_id, size_bytes)
        if leaving is None:
            self._store.abandon(version_id)
            leaving = await self._memory.room.wait(version_id, size_bytes, while_=lambda: self._is_wanted(version_id))
            await self._memory.displace(leaving)
            await self._store.install(version_id, urgent=urgency)
        else:
            await self._memory.displace(leaving)

    @contextmanager
    def _stoppable(self, version_id: str) -> Iterator[None]:
        loading, reasons = asyncio.current_task(), list[LorryError]()
        assert loading is not None

        def stop(reason: LorryError) -> None:
            reasons.append(reason)
            loading.cancel()

        self._stops[version_id] = stop
        try:
            yield
        except asyncio.CancelledError:
            if not reasons:
                raise
            loading.uncancel()
            raise reasons[0].with_traceback(None) from None
        finally:
            del self._stops[version_id]

    def _forget(self, version_id: str) -> None:
        self._urgencies.pop(version_id, None)
        self._displacing.discard(version_id)
