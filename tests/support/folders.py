"""What lies in a folder while others put things there and take them away."""

from __future__ import annotations

import os
from pathlib import Path


def found_under(folder: Path) -> list[Path]:
    """Return every file and folder beneath, sorted; what vanishes meanwhile is left out, which `Path.rglob` raises."""
    return sorted(Path(parent, name) for parent, folders, files in os.walk(folder) for name in (*folders, *files))


def sized_under(folder: Path) -> dict[Path, int]:
    """Return file → bytes of every file beneath."""
    sizes = {}
    for path in found_under(folder):
        try:
            if path.is_file():
                sizes[path] = path.stat().st_size
        except FileNotFoundError:
            continue
    return sizes
