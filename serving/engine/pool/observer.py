"""What the pool tells of what it does: to metrics, and to the list of adapters that are slow or fail."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal, Protocol, get_args

from serving.engine.pool.limits import RequestClass

Found = Literal["slot", "host", "disk", "registry"]
"""The fastest place in which a request found its adapter; ``registry`` = it was downloaded."""
FOUND: tuple[Found, ...] = get_args(Found)

Reason = Literal["room", "asked", "erased", "withheld", "superseded", "lost", "damaged"]
"""Why an adapter left a tier: for another one, on request, by the registry's orders, because it was of no use."""
REASONS: tuple[Reason, ...] = get_args(Reason)

TierName = Literal["disk", "host", "slot"]
TIERS: tuple[TierName, ...] = get_args(TierName)


class Load(Protocol):
    """One adapter on its way into host memory."""

    @property
    def source(self) -> Literal["disk", "registry"]:
        """Where its bytes came from; known once it has arrived."""


class Observer:
    """Hears of everything that is counted; this one forgets it."""

    def loading(self, version_id: str) -> AbstractContextManager[Load]:
        """Surround the load of one version; an error that leaves the block is how it ended."""
        return _forgotten()

    def admitted(self, kind: RequestClass, *, found: Found, wait_seconds: float) -> None:
        """Note that a request may run."""

    def evicted(self, tier: TierName, reason: Reason) -> None:
        """Note that a version left a tier."""


class _Forgotten:
    source: Literal["disk", "registry"] = "disk"


@contextmanager
def _forgotten() -> Iterator[Load]:
    yield _Forgotten()
