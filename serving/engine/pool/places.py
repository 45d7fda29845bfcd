"""The places that one request has, of all the bounded things that it needs one after another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any

from serving.engine.pool.admission import Admission, Place, Ticket
from serving.errors import AdmissionTimeout

_RETRY_SECONDS = 1


class Places:
    """What one request has taken so far, and how long it waited for it; one deadline covers all the waits."""

    def __init__(self, deadline_seconds: float | None) -> None:
        self._deadline = None if deadline_seconds is None else monotonic() + deadline_seconds
        self._waited_seconds = 0.0
        self._taken: list[tuple[Place, Callable[[], None]]] = []
        self._held: list[Callable[[], None]] = []

    @property
    def wait_seconds(self) -> float:
        """Seconds that it stood in queues, and waited for other things."""
        return self._waited_seconds + sum(place.wait_seconds for place, _ in self._taken)

    def left_seconds(self, within_seconds: float | None = None) -> float | None:
        """Return how long it may still wait, `within_seconds` at most; None = without end."""
        left = [] if within_seconds is None else [within_seconds]
        if self._deadline is not None:
            left.append(max(0.0, self._deadline - monotonic()))
        return min(left, default=None)

    async def take(self, admission: Admission, ticket: Ticket, *, within_seconds: float | None = None) -> Place:
        """Wait for a place, no longer than `within_seconds` nor than until the deadline.

        Raises:
            EngineBusy, AdmissionTimeout: too many wait; the turn did not come in time.
            LorryError: the reason given to those who waited.
        """
        place = await admission.admit(ticket, deadline_seconds=self.left_seconds(within_seconds))
        self._taken.append((place, lambda: admission.release(place)))
        return place

    async def in_time(self, waiting: Coroutine[Any, Any, None], *, within_seconds: float | None = None) -> None:
        """Wait for something else, no longer than `within_seconds` nor than until the deadline.

        Raises:
            AdmissionTimeout: it did not come in time.
        """
        began = monotonic()
        try:
            async with asyncio.timeout(self.left_seconds(within_seconds)):
                await waiting
        except TimeoutError as exc:
            raise AdmissionTimeout(retry_after_seconds=_RETRY_SECONDS) from exc
        self._waited_seconds += monotonic() - began

    def hold(self, let_go: Callable[[], None]) -> None:
        """Note something else that it has, which `let_go` gives back."""
        self._held.append(let_go)

    def release(self) -> None:
        """Give everything back, the last first; what was given back already is left alone."""
        while self._held:
            self._held.pop()()
        for _, let_go in reversed(self._taken):
            let_go()
