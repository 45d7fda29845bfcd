"""Free ports for tests that start servers."""

from __future__ import annotations

import random
import socket

# Twins included, all lie below Linux's ephemeral ports (32768), which outgoing connections take at any moment.
_FIRST, _LAST = 10_100, 22_400


def free_port_block(count: int = 4) -> int:
    """Return the first of `count` consecutive free ports whose twins 10,000 above are free as well.

    Blocks are tried in any order, so that test runs beside each other do not race for the same one.
    """
    blocks = list(range(_FIRST, _LAST, max(20, count)))
    random.shuffle(blocks)
    for base in blocks:
        if all(_is_free(base + offset) and _is_free(base + offset + 10_000) for offset in range(count)):
            return base
    raise RuntimeError("no free block of ports on this machine")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
