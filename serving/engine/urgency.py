"""Whether a live request waits for something that is on its way: it may become urgent until it arrives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Urgency:
    """Rises once, and then stays; whoever has it in a queue is told."""

    def __init__(self, *, urgent: bool = False) -> None:
        self._is_urgent = urgent
        self._told: list[Callable[[], None]] = []

    def __bool__(self) -> bool:
        return self._is_urgent

    def rise(self) -> None:
        """Be urgent from now on."""
        if not self._is_urgent:
            self._is_urgent = True
            for tell in list(self._told):
                tell()

    @contextmanager
    def telling(self, tell: Callable[[], None]) -> Iterator[None]:
        """Call `tell` when it rises while the block runs."""
        self._told.append(tell)
        try:
            yield
        finally:
            self._told.remove(tell)
