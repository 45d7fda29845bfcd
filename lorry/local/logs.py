"""The parts' logs: none grows without end, and who writes to one need not know."""

from __future__ import annotations

import shutil
from pathlib import Path

from lorry.home import Home

_MOST_BYTES = 64 << 20


def trim_logs(home: Home, *, most_bytes: int = _MOST_BYTES) -> None:
    """Move what logs hold that have grown too long into ``<name>.log.1``, in the place of what was there before.

    Parts append to their log as long as they run, so it is copied, and emptied where it is: a line that is written
    between the two is lost.
    """
    with home.logs_lock:  # a name that is taken out of the logs must not come back with a copy
        for path in sorted(home.logs.glob("*.log")):
            _trim(path, most_bytes=most_bytes)


def _trim(path: Path, *, most_bytes: int) -> None:
    if path.stat().st_size <= most_bytes:
        return
    beside = path.with_name(f"{path.name}.1.new")
    shutil.copyfile(path, beside)
    beside.chmod(path.stat().st_mode & 0o777)
    beside.replace(path.with_name(f"{path.name}.1"))
    with path.open("r+b") as file:
        file.truncate(0)
