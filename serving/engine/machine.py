"""What this machine refuses (no descriptors, no memory, no working disk), as refusals that say so.

None of that is the adapter's fault: whoever asked hears that it cannot be had now, and nothing is deleted for it.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from serving.errors import CacheFull, MachineRefused

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
_DAMAGE = {errno.EIO, errno.ENOENT, errno.ESTALE, errno.EUCLEAN, errno.EBADMSG, errno.ENODATA}


@contextmanager
def refusals_of_the_machine() -> Iterator[None]:
    """Turn the system's errors into refusals: CacheFull when a disk is full, else MachineRefused."""
    try:
        yield
    except OSError as exc:
        if exc.errno in _NO_ROOM:
            raise CacheFull from exc
        if exc.errno is None:  # no call of the system's: a time-out
            raise
        raise MachineRefused(f"The engine's machine refuses: {exc.strerror}.") from exc


def is_damage(error: OSError) -> bool:
    """Say whether a file cannot be read because of what became of it, rather than because the machine is short."""
    return error.errno in _DAMAGE
