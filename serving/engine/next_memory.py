"""Memory for the next adapter that is opened, had from the system before anybody waits for it.

The system gives memory page by page and zeroes each: for 20 MB that takes as long as digesting them does. So one piece
is kept ready, as large as the last that was wanted; adapters of one base are mostly of one recipe.
"""

from __future__ import annotations

import threading
from io import FileIO

from serving.engine.opened import OpenedAdapter

_PIECE_BYTES = 1 << 20
_MOST_BYTES = 256 << 20


class NextMemory:
    """One piece of memory that nothing was opened into; any thread may use it."""

    def __init__(self) -> None:
        """Keep nothing yet: nobody has said how much is wanted."""
        self._lock = threading.Lock()
        self._ready: OpenedAdapter | None = None
        self._wanted_bytes = 0

    @property
    def is_ready(self) -> bool:
        """Whether there is nothing to do ahead."""
        return not self._wanted_bytes or self._ready is not None

    def take(self, size_bytes: int) -> OpenedAdapter:
        """Return memory for `size_bytes`: what is ready when it is of that size, else new.

        Raises:
            OSError: when the machine has none, or no descriptor.
        """
        with self._lock:
            ready, self._ready = self._ready, None
            self._wanted_bytes = size_bytes if size_bytes <= _MOST_BYTES else 0
        if ready is not None:
            if ready.size_bytes == size_bytes:
                return ready
            ready.close()
        return OpenedAdapter(size_bytes)

    def make_ready(self) -> None:
        """Get the next piece; where the machine has none, the next `take` will hear of it."""
        wanted_bytes = self._wanted_bytes
        if self.is_ready:
            return
        try:
            memory = OpenedAdapter(wanted_bytes)
            _touch(memory)
        except OSError:
            return
        with self._lock:
            if self._ready is None and self._wanted_bytes == wanted_bytes:
                self._ready = memory


def _touch(memory: OpenedAdapter) -> None:
    """Write zeros everywhere, without the interpreter's lock: then no page has to be found any more."""
    plain = memory.plain
    with FileIO("/dev/zero") as zeros:
        for begin in range(0, len(plain), _PIECE_BYTES):
            zeros.readinto(plain[begin : begin + _PIECE_BYTES])
