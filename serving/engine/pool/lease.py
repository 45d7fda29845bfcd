"""Who is using which adapter: what is leased is neither evicted nor erased.

A lease is given back once, however often `Lease.release` is called, and whoever waits for an adapter to be free is
woken by the release of its last lease. An adapter that is closed gives no new leases; a holder that offered a way to
be stopped can be asked to stop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from copy import copy

from kit.errors import LorryError


class Lease:
    """One request's hold on one version."""

    def __init__(self, book: LeaseBook, version_id: str, abort: Callable[[LorryError], None] | None) -> None:
        self._book = book
        self._abort = abort
        self.version_id = version_id
        self.released = False

    def release(self) -> None:
        """Give the lease back; further calls do nothing."""
        if not self.released:
            self.released = True
            self._book._give_back(self)

    def abort(self, reason: LorryError) -> None:
        """Ask the holder to stop because of `reason`. It still releases the lease itself, when the engine let go."""
        if not self.released and self._abort is not None:
            self._abort(reason)


class LeaseBook:
    """Every lease of one engine; belongs to one event loop."""

    def __init__(self) -> None:
        self._leases: dict[str, set[Lease]] = {}
        self._closed: dict[str, LorryError] = {}
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}

    @property
    def leased(self) -> Collection[str]:
        """The versions with at least one lease."""
        return self._leases.keys()

    def count(self, version_id: str) -> int:
        """Return how many leases `version_id` has."""
        return len(self._leases.get(version_id, ()))

    def lease(self, version_id: str, *, abort: Callable[[LorryError], None] | None = None) -> Lease:
        """Lease `version_id`; `abort` is called, at most while the lease is held, to ask its holder to stop.

        Raises:
            LorryError: the reason given to `close`.
        """
        self.require_open(version_id)
        lease = Lease(self, version_id, abort)
        self._leases.setdefault(version_id, set()).add(lease)
        return lease

    def require_open(self, version_id: str) -> None:
        """Refuse a version that is closed.

        Raises:
            LorryError: the reason given to `close`.
        """
        if (reason := self._closed.get(version_id)) is not None:
            raise copy(reason)  # what was raised holds on to people's requests

    def close(self, version_id: str, reason: LorryError) -> None:
        """Give no new lease of `version_id`, but `reason`."""
        self._closed[version_id] = reason

    def reopen(self, version_id: str) -> None:
        """Give leases of `version_id` again."""
        self._closed.pop(version_id, None)

    def abort(self, version_id: str, reason: LorryError) -> int:
        """Ask every holder of `version_id` to stop; returns how many there are."""
        holders = list(self._leases.get(version_id, ()))
        for lease in holders:
            lease.abort(reason)
        return len(holders)

    async def wait_until_free(self, version_id: str) -> None:
        """Return once `version_id` has no lease. New leases prolong the wait: close the version first."""
        while version_id in self._leases:
            future = asyncio.get_running_loop().create_future()
            waiting = self._waiting.setdefault(version_id, [])
            waiting.append(future)
            try:
                await future
            finally:
                waiting.remove(future)
                if not waiting and self._waiting.get(version_id) is waiting:
                    del self._waiting[version_id]

    def _give_back(self, lease: Lease) -> None:
        held = self._leases[lease.version_id]
        held.remove(lease)
        if held:
            return
        del self._leases[lease.version_id]
        for future in self._waiting.get(lease.version_id, ()):
            if not future.done():
                future.set_result(None)
