"""Memory for the next adapter, had from the system before anybody waits for it.

The system gives memory page by page, as each is first written to: for an adapter of 20 MB that takes 10 ms, five times
what copying it takes. So one piece is kept ready. It is as large as the last that was wanted, since the adapters of a
base are mostly of one recipe; who wants another size takes it from the system, as the second of two in a row does.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable

import torch

from serving.engine.worker.weights_file import new_memory

_PIECE_BYTES = 1 << 20  # what is taken between two looks at whether somebody waits
_MOST_BYTES = 256 << 20


class Spare:
    """One piece of anonymous memory, for one thread."""

    def __init__(self) -> None:
        """Keep nothing yet: nobody has said how much is wanted."""
        self._wanted_bytes = 0
        self._memory: mmap.mmap | None = None
        self._ready_bytes = 0

    @property
    def is_ready(self) -> bool:
        """Whether there is nothing to do ahead."""
        return self._ready_bytes >= self._wanted_bytes

    def take(self, size_bytes: int) -> mmap.mmap:
        """Return private memory of `size_bytes`, with zeros in it; the spare piece when it is of that size.

        Raises:
            OSError: when the system has none.
        """
        memory, self._memory, self._ready_bytes = self._memory, None, 0
        self._wanted_bytes = size_bytes if size_bytes <= _MOST_BYTES else 0
        return memory if memory is not None and len(memory) == size_bytes else new_memory(size_bytes)

    def make_ready(self, *, while_: Callable[[], bool]) -> None:
        """Get the next piece, as far as `while_` allows; where the system has none, the next `take` will hear of it."""
        try:
            if self._memory is None:
                self._memory, self._ready_bytes = new_memory(self._wanted_bytes), 0
        except OSError:
            self._wanted_bytes = 0
            return
        numbers = torch.frombuffer(self._memory, dtype=torch.uint8)
        while not self.is_ready and while_():
            numbers[self._ready_bytes : self._ready_bytes + _PIECE_BYTES].zero_()  # without the interpreter's lock
            self._ready_bytes += _PIECE_BYTES
