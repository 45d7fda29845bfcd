"""Where a version's files are in the object store.

Uploads land under ``incoming/``, which a lifecycle rule may empty; verified files live under one
prefix per user, so that erasing a user is structural.
"""

from __future__ import annotations

from registry.manifest import Manifest


def incoming_key(manifest: Manifest, path: str) -> str:
    """Return the key that a publisher uploads this file to."""
    return f"incoming/{manifest.version_id}/{path}"


def final_key(manifest: Manifest, path: str) -> str:
    """Return the key that this file is served from."""
    owner = manifest.owner
    return f"tenants/{owner.tenant}/users/{owner.user}/versions/{manifest.version_id}/{path}"
