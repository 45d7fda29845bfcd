"""The places that one request has, of all the bounded things that it needs one after another."""

from __future__ import annotations

from time import monotonic

from serving.engine.pool.admission import Admission, Place, Ticket


class Places:
    """What one request has taken so far, and how long it waited for it; one deadline covers all the waits."""

    def __init__(self, deadline_seconds: float | None) -> None:
        self._deadline = None if deadline_seconds is None else monotonic() + deadline_seconds
        self._taken: list[tuple[Admission, Place]] = []

    @property
    def wait_seconds(self) -> float:
        """Seconds that it stood in queues."""
        return sum(place.wait_seconds for _, place in self._taken)

    async def take(self, admission: Admission, ticket: Ticket, *, within_seconds: float | None = None) -> Place:
        """Wait for a place, no longer than `within_seconds` nor than until the deadline.

        Raises:
            EngineBusy, AdmissionTimeout: too many wait; the turn did not come in time.
            LorryError: the reason given to those who waited.
        """
        left = [] if within_seconds is None else [within_seconds]
        if self._deadline is not None:
            left.append(max(0.0, self._deadline - monotonic()))
        place = await admission.admit(ticket, deadline_seconds=min(left, default=None))
        self._taken.append((admission, place))
        return place

    def release(self) -> None:
        """Give everything back, the last first; what was given back already is left alone."""
        for admission, place in reversed(self._taken):
            admission.release(place)
