"""Where a version's files are in the object store.

Uploads land under ``incoming/``, which a lifecycle rule may empty; verified files live under one
prefix per user, so that erasing a user is structural.
"""

from __future__ import annotations

from registry.manifest import Manifest, Owner

INCOMING = "incoming/"
SEALED = "tenants/"


def incoming_key(manifest: Manifest, path: str) -> str:
    """Return the key that a publisher uploads this file to."""
    return f"incoming/{manifest.version_id}/{path}"


def final_key(manifest: Manifest, path: str) -> str:
    """Return the key that this file is served from."""
    owner = manifest.owner
    return f"tenants/{owner.tenant}/users/{owner.user}/versions/{manifest.version_id}/{path}"


def version_key(owner: Owner, version_id: str) -> str:
    """Return the key of a version's one sealed object; ids are of one length, so that no key begins with another."""
    return f"tenants/{owner.tenant}/users/{owner.user}/versions/{version_id}"


def incoming_prefix(version_id: str) -> str:
    """Return what the keys of everything begin with that was uploaded for a version."""
    return f"incoming/{version_id}/"
