"""Where a version's bytes are in the object store.

A version is one sealed object, under one prefix per user, so that erasing a user is structural. What a publisher
cannot seal or cannot send at once lands in the open under ``incoming/`` first, which a lifecycle rule may empty.
"""

from __future__ import annotations

from registry.manifest import Manifest, Owner

INCOMING = "incoming/"
SEALED = "tenants/"


def incoming_key(manifest: Manifest, path: str) -> str:
    """Return the key that a publisher uploads this file to in the open."""
    return f"{incoming_prefix(manifest.version_id)}{path}"


def incoming_prefix(version_id: str) -> str:
    """Return the prefix of everything that was uploaded in the open for a version."""
    return f"{INCOMING}{version_id}/"


def sealed_key(manifest: Manifest) -> str:
    """Return the key of the version's sealed object: its files one after another, in the manifest's order."""
    return version_key(manifest.owner, manifest.version_id)


def version_key(owner: Owner, version_id: str) -> str:
    """Return the same key, where only ids are left."""
    return f"{owner_prefix(owner)}versions/{version_id}"


def owner_prefix(owner: Owner) -> str:
    """Return the prefix of everything that is kept for an owner."""
    return f"{SEALED}{owner.tenant}/users/{owner.user}/"
