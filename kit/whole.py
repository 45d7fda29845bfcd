"""Files that others read while they are written anew: they see what was there, or all of what comes."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Have `path` hold `text`, made beside it and renamed; only this account may read it.

    Whoever writes last wins. A killed process leaves the old file, and maybe a hidden one beside it; a power cut may
    leave either.
    """
    descriptor, made = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(made, path)
    except BaseException:
        Path(made).unlink(missing_ok=True)
        raise
