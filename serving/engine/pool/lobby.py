"""Who waits for an adapter that is on its way: so many requests of each class, each until its deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any, TypeAlias, TypeVar

from kit.errors import LorryError
from serving.engine.pool.limits import CLASSES, RequestClass
from serving.errors import AdmissionTimeout, EngineBusy

Value = TypeVar("Value")
_TurnedAway: TypeAlias = asyncio.Future[LorryError]


class Lobby:
    """Belongs to one event loop.

    When too many wait, the newest of those who wait for the adapter that most wait for has to go: an adapter that does
    not arrive, and whoever asks for it, keeps nobody away whose adapter does.
    """

    def __init__(self, limit: int, *, retry_after_seconds: Callable[[RequestClass], int]) -> None:
        """Let `limit` requests of each class wait; `retry_after_seconds` is what those hear who may not."""
        self._limit = limit
        self._retry_after_seconds = retry_after_seconds
        self._waiting: dict[RequestClass, dict[str, list[_TurnedAway]]] = {kind: {} for kind in CLASSES}

    def waiting(self, kind: RequestClass) -> int:
        """Return how many requests of `kind` wait."""
        return sum(len(group) for group in self._waiting[kind].values())

    def waiting_for(self, version_id: str) -> int:
        """Return how many requests wait for one version."""
        return sum(len(groups.get(version_id, ())) for groups in self._waiting.values())

    async def wait(
        self, version_id: str, kind: RequestClass, arrival: Coroutine[Any, Any, Value], *, within_seconds: float | None
    ) -> Value:
        """Return what `arrival` returns; it is cancelled when it is not waited for to its end.

        Raises:
            EngineBusy: too many wait.
            AdmissionTimeout: it did not end `within_seconds`.
            LorryError: the reason given to `refuse_all`.
        """
        arriving = asyncio.ensure_future(arrival)
        arriving.add_done_callback(_seen)
        try:
            with self._place(version_id, kind) as turned_away:
                ends: set[asyncio.Future[Any]] = {arriving, turned_away}
                await asyncio.wait(ends, timeout=within_seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not arriving.done():
                arriving.cancel()
        if arriving.done():
            return arriving.result()
        if turned_away.done():
            raise turned_away.result()
        raise AdmissionTimeout(retry_after_seconds=self._retry_after_seconds(kind))

    def refuse_all(self, reason: LorryError) -> int:
        """Turn away everybody who waits; what they wait for arrives all the same. Returns how many that were."""
        waiting = [each for groups in self._waiting.values() for group in groups.values() for each in group]
        for turned_away in waiting:
            turned_away.set_result(copy(reason))
        for groups in self._waiting.values():
            groups.clear()
        return len(waiting)

    @contextmanager
    def _place(self, version_id: str, kind: RequestClass) -> Iterator[_TurnedAway]:
        groups = self._waiting[kind]
        mine = groups.setdefault(version_id, [])
        turned_away: _TurnedAway = asyncio.get_running_loop().create_future()
        mine.append(turned_away)
        if self.waiting(kind) > self._limit:
            longest = max(groups.values(), key=len)
            busy = EngineBusy(retry_after_seconds=self._retry_after_seconds(kind))
            (longest if len(longest) > len(mine) else mine).pop().set_result(busy)
        try:
            yield turned_away
        finally:
            if turned_away in mine:
                mine.remove(turned_away)
            if not mine and groups.get(version_id) is mine:
                del groups[version_id]


def _seen(arriving: asyncio.Task[Any]) -> None:
    """Mark its error as seen: everyone who waited may have gone away."""
    if not arriving.cancelled():
        arriving.exception()
