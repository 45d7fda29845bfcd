"""Work that follows other work on a thread of its own: digesting what another thread opens."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Self


class Follower:
    """Does `work` with each piece, in order; the end of the `with` block waits for the last one.

    What `work` raises is raised where the next piece is handed over, or at the block's end; pieces after that are
    passed over. When the block itself raises, pieces that wait are passed over as well. However many wait, none is
    copied: each must last until the block ends.
    """

    def __init__(self, work: Callable[[memoryview], object]) -> None:
        """Prepare to follow."""
        self._work = work
        self._pieces: SimpleQueue[memoryview | None] = SimpleQueue()
        self._failure: BaseException | None = None
        self._given_up = False
        self._thread = Thread(target=self._run, name="lorry-follow", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._given_up = error is not None
        self._pieces.put(None)
        self._thread.join()
        if error is None:
            self._raise_failure()

    def follow(self, piece: memoryview) -> None:
        """Hand over the next piece."""
        self._raise_failure()
        self._pieces.put(piece)

    def _run(self) -> None:
        while (piece := self._pieces.get()) is not None:
            if self._failure is not None or self._given_up:
                continue
            try:
                self._work(piece)
            except BaseException as exc:  # raised in the other thread, where somebody handles it
                self._failure = exc

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
