"""API keys: ``lorry_`` and 43 random characters (256 bits), shown once, kept as a SHA-256 digest.

A key's first 14 characters find its row; the digest of the whole is then compared in constant
time. With 256 random bits in a key, a slow hash would protect nothing that this does not.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets

from sqlalchemy.ext.asyncio import AsyncSession

from kit.names import check_name
from serving.gateway.repository import ApiKeyRepository

_KEY = re.compile(r"lorry_[A-Za-z0-9_-]{43}", re.ASCII)
_PREFIX_CHARACTERS = 14


async def create_api_key(session: AsyncSession, tenant: str) -> str:
    """Make a key for `tenant`, keep its digest, and return the key, which nobody can read again.

    Raises:
        InvalidName: when `tenant` is no name.
    """
    check_name(tenant, field="tenant")
    key = f"lorry_{secrets.token_urlsafe(32)}"
    await ApiKeyRepository(session).add(tenant=tenant, prefix=key[:_PREFIX_CHARACTERS], digest=key_digest(key))
    return key


async def find_tenant(session: AsyncSession, key: str) -> str | None:
    """Return the tenant whose key this is; None when it is nobody's, revoked, or no key at all."""
    if _KEY.fullmatch(key) is None:
        return None
    digest = key_digest(key)
    found = None
    for stored in await ApiKeyRepository(session).with_prefix(key[:_PREFIX_CHARACTERS]):
        if hmac.compare_digest(stored.digest, digest):
            found = stored.tenant
    return found


async def revoke_api_key(session: AsyncSession, key: str) -> bool:
    """Stop a key from being accepted; say whether it was in force."""
    return await ApiKeyRepository(session).revoke(key_digest(key))


def key_digest(key: str) -> bytes:
    """Return the 32 bytes that are kept of a key."""
    return hashlib.sha256(key.encode()).digest()
