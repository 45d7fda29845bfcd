"""Answers of a service, remembered: briefly while it answers, longer while it does not.

However many ask for one thing at once, the service is asked once. While it is down, or hangs, whoever asks for what was
answered before is answered from memory, most of them at once, and the service is tried again behind their backs.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
_MAX_ENTRIES = 10_000
_AHEAD = 0.5
_AFTER_SECONDS = 0.02
_PATIENCE_SECONDS = 1.0


class Remembered(Generic[K, V]):
    """At most `max_entries` answers, each fresh for `seconds` and good for `stale_seconds` in an emergency."""

    def __init__(
        self,
        *,
        seconds: float,
        stale_seconds: float,
        unavailable: tuple[type[Exception], ...],
        max_entries: int = _MAX_ENTRIES,
        patience_seconds: float = _PATIENCE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Remember nothing yet.

        Args:
            seconds: how long an answer is given again without asking; 0 = not at all.
            stale_seconds: how long it is given again when the service is unavailable.
            unavailable: what is raised by a service that does not answer; anything else is its answer.
            max_entries: beyond them, the oldest is forgotten.
            patience_seconds: how long whoever may be answered from memory waits for the service before.
            clock: seconds, for tests.
        """
        self._seconds = seconds
        self._stale_seconds = stale_seconds
        self._unavailable = unavailable
        self._max_entries = max_entries
        self._patience_seconds = patience_seconds
        self._clock = clock
        self._entries: OrderedDict[K, tuple[float, V]] = OrderedDict()
        self._asking: dict[K, asyncio.Task[V]] = {}
        self._renewing: set[K] = set()
        self._is_down = False

    async def get(self, key: K, ask: Callable[[], Awaitable[V]]) -> V:
        """Return the answer for `key`, from memory or by asking; what `ask` raises rises here."""
        age, known = self._recall(key)
        if known is not None and age < self._seconds:
            if age > self._seconds * _AHEAD:
                self._renew(key, ask)  # so that nobody who asks all the time ever waits
            return known
        if known is not None and self._is_down:
            self._ask(key, ask)
            return known
        asking = self._ask(key, ask)
        if known is not None:
            await asyncio.wait({asking}, timeout=self._patience_seconds)
            if not asking.done():
                self._is_down = True  # until it answers
                return known
        try:
            return await asyncio.shield(asking)
        except self._unavailable:
            if known is None:
                raise
            return known

    def amend(self, key: K, change: Callable[[V], V | None]) -> None:
        """Change what is remembered for `key`, or forget it (None), because it is known here to be otherwise.

        An answer that is under way may be from before, so it is not remembered, nor given to who asks from now on.
        """
        self._asking.pop(key, None)
        if (entry := self._entries.get(key)) is None:
            return
        since, known = entry
        if (changed := change(known)) is None:
            del self._entries[key]
        else:
            self._entries[key] = (since, changed)

    def _recall(self, key: K) -> tuple[float, V | None]:
        entry = self._entries.get(key)
        if entry is None:
            return 0.0, None
        age = self._clock() - entry[0]
        return (age, entry[1]) if age < max(self._seconds, self._stale_seconds) else (age, None)

    def _renew(self, key: K, ask: Callable[[], Awaitable[V]]) -> None:
        """Ask in a moment: asked at once, all that is renewed on a caller's way would go before the caller."""
        if key in self._renewing or key in self._asking:
            return

        def renew() -> None:
            self._renewing.discard(key)
            if self._recall(key)[0] > self._seconds * _AHEAD:  # nobody has asked meanwhile
                self._ask(key, ask)

        self._renewing.add(key)
        asyncio.get_running_loop().call_later(random.uniform(0, _AFTER_SECONDS), renew)

    def _ask(self, key: K, ask: Callable[[], Awaitable[V]]) -> asyncio.Task[V]:
        task = self._asking.get(key)
        if task is None:
            # In a context of its own: the first caller's deadline is not the others'.
            task = asyncio.get_running_loop().create_task(_awaited(ask), context=contextvars.Context())
            self._asking[key] = task
            task.add_done_callback(lambda done: self._settle(key, done))
        return task

    def _settle(self, key: K, task: asyncio.Task[V]) -> None:
        """Keep an answer; forget one that the service took back."""
        error = None if task.cancelled() else task.exception()
        if self._asking.get(key) is not task:  # it was overtaken: see `amend`
            return
        del self._asking[key]
        if task.cancelled():
            return
        self._is_down = isinstance(error, self._unavailable)
        if self._is_down:
            return
        self._entries.pop(key, None)
        if error is None:
            self._entries[key] = (self._clock(), task.result())
        while len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)


async def _awaited(ask: Callable[[], Awaitable[V]]) -> V:
    return await ask()
