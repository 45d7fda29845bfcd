"""Bytes that do not depend on who wrote them: canonical JSON and SHA-256 digests.

Laws: ``canonical_json`` of equal values is equal bytes, whatever the order of keys;
``json.loads(canonical_json(v)) == v`` for JSON values without floats that are not finite.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_CHUNK_BYTES = 1 << 20


def canonical_json(value: Any) -> bytes:
    """Return UTF-8 JSON with sorted keys, no spaces and no NaN.

    Raises:
        ValueError: for NaN or infinite floats, which JSON cannot hold.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def sha256_bytes(data: bytes) -> str:
    """Return the SHA-256 of `data` as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_json(value: Any) -> str:
    """Return the SHA-256 of a JSON value's canonical bytes."""
    return sha256_bytes(canonical_json(value))


def sha256_json_items(items: Iterable[Any]) -> str:
    """Return what `sha256_json` returns of a list of these JSON values, without ever holding all of its bytes."""
    digest, before = hashlib.sha256(b"["), b""
    for item in items:
        digest.update(before + canonical_json(item))
        before = b","
    digest.update(b"]")
    return digest.hexdigest()


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, read in chunks of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
