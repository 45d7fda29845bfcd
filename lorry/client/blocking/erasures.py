# Made by scripts/blocking_client.py of lorry/client/awaited: change it there.
"""Erasing a user: asked for, and followed until nothing is left."""

from __future__ import annotations

from collections.abc import Iterator

from lorry.client.blocking.wire import Wire
from lorry.client.calls import erasures as calls
from lorry.client.results import Erasure


class Erasures:
    """The erasures of the tenant's users."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def ask(self, user: str) -> Erasure:
        """Have everything of a user erased, from now on and for good; asked again, it is the same erasure.

        Raises:
            NotFound: when nothing is known of them.
        """
        return self._wire.send(calls.ask(user))

    def get(self, user: str) -> Erasure:
        """Return what the erasure has done, store by store, and what it waits for; also when it has ended.

        Raises:
            NotFound: when nobody has asked for it.
        """
        return self._wire.send(calls.get(user))

    def watch(self, user: str, *, every_seconds: float = 2.0) -> Iterator[Erasure]:
        """Yield the report as it is now, and again whenever it has changed, until nothing is left. Raises as `get`."""
        return self._wire.poll(calls.get(user), until=lambda found: found.ended, every_seconds=every_seconds)
