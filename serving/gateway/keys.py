"""API keys: ``lorry_`` and 43 random characters (256 bits), shown once, kept as a SHA-256 digest.

A key's first 14 characters find its row; the digest of the whole is then compared in constant
time. With 256 random bits in a key, a slow hash would protect nothing that this does not.

A key is rotated by making another with the same name and scopes, and letting the old one end later: both are in force
meanwhile, so that every caller can change over without being refused.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from kit.names import check_name
from serving.errors import ApiKeyNotFound
from serving.gateway.repository import ApiKeyRepository, ListedKey, StoredKey
from serving.gateway.scopes import EVERYTHING, check_scopes

_KEY = re.compile(r"lorry_[A-Za-z0-9_-]{43}", re.ASCII)
_PREFIX_CHARACTERS = 14
OVERLAP: Final = timedelta(hours=24)


@dataclass(frozen=True, kw_only=True)
class NewKey:
    """A key that was just made; `key` cannot be read again."""

    key_id: str
    key: str


async def create_api_key(
    session: AsyncSession,
    tenant: str,
    *,
    scopes: Iterable[str] = (EVERYTHING,),
    name: str = "",
    lasts: timedelta | None = None,
) -> str:
    """Make a key for `tenant`, keep its digest, and return the key, which nobody can read again.

    Args:
        session: whose transaction keeps it.
        tenant: whose key it is.
        scopes: what it may be used for.
        name: what people call it.
        lasts: when it ends by itself; None = never.

    Raises:
        InvalidName: when `tenant` is no name.
        UnknownScope: for a scope that is none.
    """
    return (await make_api_key(session, tenant, scopes=scopes, name=name, lasts=lasts)).key


async def make_api_key(
    session: AsyncSession, tenant: str, *, scopes: Iterable[str], name: str = "", lasts: timedelta | None = None
) -> NewKey:
    """Do as `create_api_key`, and return the new key's id as well."""
    check_name(tenant, field="tenant")
    key = f"lorry_{secrets.token_urlsafe(32)}"
    key_id = await ApiKeyRepository(session).add(
        tenant=tenant,
        prefix=key[:_PREFIX_CHARACTERS],
        digest=key_digest(key),
        scopes=check_scopes(scopes),
        name=name,
        lasts=lasts,
    )
    return NewKey(key_id=key_id, key=key)


async def rotate_api_key(session: AsyncSession, tenant: str, key_id: str, *, overlap: timedelta = OVERLAP) -> NewKey:
    """Make a key with the name and scopes of another, which ends after `overlap`.

    A key that was to expire by itself gives the new one as long a life as it had in all.

    Raises:
        ApiKeyNotFound: when the tenant has no such key in force.
    """
    old = await ApiKeyRepository(session).take_in_force(tenant, key_id)
    if old is None:
        raise ApiKeyNotFound(f"tenant {tenant!r} has no key {key_id!r} in force", field="key_id")
    lasts = None if old.expires_at is None else old.expires_at - old.created_at
    made = await make_api_key(session, tenant, scopes=old.scopes, name=old.name, lasts=lasts)
    await ApiKeyRepository(session).expire(key_id, after=overlap)
    return made


async def list_api_keys(session: AsyncSession, tenant: str) -> list[ListedKey]:
    """Return every key that a tenant ever had, the newest first."""
    return await ApiKeyRepository(session).list(check_name(tenant, field="tenant"))


async def find_key(session: AsyncSession, key: str) -> StoredKey | None:
    """Return what is known of a key; None when it is nobody's, revoked, over, or no key at all."""
    if _KEY.fullmatch(key) is None:
        return None
    digest = key_digest(key)
    found = None
    for stored in await ApiKeyRepository(session).with_prefix(key[:_PREFIX_CHARACTERS]):
        if hmac.compare_digest(stored.digest, digest):
            found = stored
    return found


async def revoke_api_key(session: AsyncSession, tenant: str, key_id: str) -> None:
    """Stop a key from being accepted, at once.

    Raises:
        ApiKeyNotFound: when the tenant has no such key in force.
    """
    if not await ApiKeyRepository(session).revoke(check_name(tenant, field="tenant"), key_id):
        raise ApiKeyNotFound(f"tenant {tenant!r} has no key {key_id!r} in force", field="key_id")


def key_digest(key: str) -> bytes:
    """Return the 32 bytes that are kept of a key."""
    return hashlib.sha256(key.encode()).digest()
