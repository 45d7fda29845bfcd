"""What shows the registry that an engine which starts is the one that ran from the same disk before.

An engine that is killed and started again at once comes back while the registry still counts it as alive. It takes its
place again because it shows the same proof; another program that has only the engines' token cannot.
"""

from __future__ import annotations

import hmac
import os
import secrets
import tempfile
from pathlib import Path

_FILE = ".engine-secret"
_BYTES = 32


def engine_proof(directory: Path, *, engine_id: str) -> str:
    """Return 64 hex digits that are the same for this directory and id for ever, and say nothing about others.

    The secret behind it is made once, readable by this account only; of several engines that share the directory, one
    makes it.

    Raises:
        OSError: when the directory cannot be written to or read.
    """
    path = directory / _FILE
    try:
        secret = path.read_bytes()
    except FileNotFoundError:
        secret = b""
    if len(secret) != _BYTES:
        secret = _make(path, replace=bool(secret) or path.exists())
    return hmac.digest(secret, engine_id.encode(), "sha256").hex()


def _make(path: Path, *, replace: bool) -> bytes:
    """Make the file whole or not at all; return what is in it, which another engine may have put there first."""
    descriptor, temporary = tempfile.mkstemp(prefix=f"{_FILE}.", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_BYTES))
            file.flush()
            os.fsync(file.fileno())
        if replace:  # what a broken disk left
            os.replace(temporary, path)
        else:
            try:
                os.link(temporary, path)
            except FileExistsError:
                pass
    finally:
        Path(temporary).unlink(missing_ok=True)
    return path.read_bytes()
