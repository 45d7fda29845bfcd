"""What a request holds while it runs."""

from __future__ import annotations

from collections.abc import Callable

from serving.engine.pool.lease import Lease
from serving.engine.pool.observer import Found


class PoolLease:
    """A request's right to run: its version stays, and it has its seats.

    Attributes:
        found: the fastest place where its version was when it asked.
    """

    def __init__(self, lease: Lease, release: Callable[[], None], *, wait_seconds: float, found: Found) -> None:
        self._lease = lease
        self._release = release
        self.version_id = lease.version_id
        self.wait_seconds = wait_seconds
        self.found = found

    @property
    def was_resident(self) -> bool:
        """Whether its version was in host memory already."""
        return self.found in ("slot", "host")

    @property
    def released(self) -> bool:
        """Whether it was given back."""
        return self._lease.released

    def release(self) -> None:
        """Give everything back; further calls do nothing."""
        if not self._lease.released:
            self._release()
            self._lease.release()
