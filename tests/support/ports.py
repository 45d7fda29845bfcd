"""Free ports for tests that start servers."""

from __future__ import annotations

import random
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

# Twins included, all lie below Linux's ephemeral ports (32768), which outgoing connections take at any moment; no block
# is among the twins of another.
_FIRST, _LAST, _STEP = 10_100, 20_100, 40
_kept: list[FileLock] = []


def free_port_block(count: int = 4) -> int:
    """Return the first of `count` consecutive free ports, 40 at most, whose twins 10,000 above are free as well.

    Blocks are tried in any order, and the one that is returned is given to no other process of this machine's tests
    while this one lives: many of its ports are bound a minute later, when their servers start.
    """
    assert count <= _STEP
    blocks = list(range(_FIRST, _LAST, _STEP))
    random.shuffle(blocks)
    for base in blocks:
        lock = FileLock(Path(tempfile.gettempdir()) / f"lorry-ports-{base}.lock")
        try:
            lock.acquire(blocking=False)
        except OSError:  # another process has it (a filelock.Timeout), or another user's did
            continue
        if all(_is_free(base + offset) and _is_free(base + offset + 10_000) for offset in range(count)):
            _kept.append(lock)
            return base
        lock.release()
    raise RuntimeError("no free block of ports on this machine")


@contextmanager
def reserved_port() -> Iterator[int]:
    """Yield a port on which a process may listen; the kernel gives it to nobody who asks for any port meanwhile.

    The reserving socket is bound and never listens, so that Linux lets a server that sets SO_REUSEADDR bind beside it.
    """
    with free_socket() as reserving:
        yield reserving.getsockname()[1]


def free_socket(port: int = 0) -> socket.socket:
    """A socket bound to a port that the kernel chose, so that test runs beside each other never meet."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    return listening


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
