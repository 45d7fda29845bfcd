"""Is this machine large enough? Asked before anything is started."""

from __future__ import annotations

import shutil
from pathlib import Path

import psutil

from lorry.errors import MachineTooSmall

_GIB = 1 << 30
# Measured with SmolLM2-135M on two cores: resident memory of each part in GiB, rounded up.
MEMORY_GIB = {"postgres": 0.2, "seaweedfs": 0.4, "registry": 0.2, "engine": 4.5, "gateway": 0.2, "extraction": 0.2}
TRAINING_GIB = 4.0
DISK_GIB = 2.0


def check_machine(parts: tuple[str, ...], *, home: Path, training: bool = False) -> None:
    """Raise unless memory for `parts` (and a training beside them) and disk for their state are free.

    Raises:
        MachineTooSmall: saying what is needed and what is there.
    """
    check_memory(parts, training=training)
    check_disk(home)


def check_memory(parts: tuple[str, ...], *, training: bool = False) -> None:
    """Raise `MachineTooSmall` unless memory for `parts`, and a training beside them, is free."""
    needed = sum(MEMORY_GIB[part] for part in parts) + (TRAINING_GIB if training else 0)
    free = psutil.virtual_memory().available / _GIB
    if free < needed:
        what = ", ".join((*parts, *(("a training",) if training else ())))
        raise MachineTooSmall(
            f"{needed:.1f} GiB of memory are needed for {what}; {free:.1f} GiB are free", field="memory"
        )


def check_disk(home: Path) -> None:
    """Raise `MachineTooSmall` unless there is disk for the parts' state."""
    disk = shutil.disk_usage(home).free / _GIB
    if disk < DISK_GIB:
        raise MachineTooSmall(f"{DISK_GIB:.0f} GiB of disk are needed; {home} has {disk:.1f} GiB free", field="disk")
