"""Threads of a library that ask again and again, made to sleep while nothing is there for them to find.

Such a thread waits on the event that ends it, for as long as its pause is. Here that wait lasts longer while all is
quiet, and ends at once when somebody knows of work.
"""

from __future__ import annotations

import threading


class Pace:
    """How often slowed threads ask: as they would by themselves while awake, every `quiet_seconds` while not.

    Awake at the beginning. What nobody was told of is found after `quiet_seconds` at the latest.
    """

    def __init__(self, *, quiet_seconds: float) -> None:
        self._quiet_seconds = quiet_seconds
        self._awake = threading.Event()
        self._awake.set()

    def slow(self, stop: threading.Event) -> None:
        """Slow every thread that waits on `stop`; to set it still ends all of them at once."""
        wait, end = stop.wait, stop.set

        def wait_longer(timeout: float | None = None) -> bool:
            if timeout is None or self._awake.is_set():
                return wait(timeout)
            self._awake.wait(max(timeout, self._quiet_seconds))
            return stop.is_set()

        def end_all() -> None:
            end()
            self._awake.set()

        stop.wait, stop.set = wait_longer, end_all  # type: ignore[method-assign]

    def wake(self) -> None:
        """Have every slowed thread ask now, and as often as it likes until `calm`."""
        self._awake.set()

    def calm(self) -> None:
        """Have slowed threads ask seldom from their next pause on."""
        self._awake.clear()
