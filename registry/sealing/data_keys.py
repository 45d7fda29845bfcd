"""Data keys: one an owner, wrapped by a master key; from it come the keys that seal their content.

user's data key ──HKDF──► content key of one version ──HKDF──► key of one sealed object

Only the registry ever holds a data key. An engine gets the content key of a version that it installs.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import OrderedDict
from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncSession

from kit.database import Database
from kit.errors import MasterKeyMissing
from kit.master_keys import MasterKeys
from kit.sealing import derive_key, new_key
from registry.errors import DataKeyDestroyed
from registry.manifest import Owner
from registry.repository import subject_of
from registry.sealing.repository import SealingRepository, WrappedKey

_CACHED_KEYS = 4096
_CACHE_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class DataKey:
    """One owner's key, in the open: it stays in this process's memory."""

    id: str
    secret: bytes = field(repr=False)

    def content_key(self, version_id: str) -> bytes:
        """Return the key of one version's content, which opens nothing else."""
        return content_key(self.secret, version_id)


def content_key(secret: bytes, version_id: str) -> bytes:
    """Return the key of one version's content, from the data key of its owner."""
    return derive_key(secret, f"version {version_id}")


class DataKeys:
    """Makes, opens and destroys data keys.

    Whether a key was destroyed is read from the database every time; only the work of unwrapping, which may be a call
    of KMS, is remembered, for a minute.
    """

    def __init__(self, database: Database, master_keys: MasterKeys) -> None:
        self._database = database
        self._master_keys = master_keys
        self._unwrapped = _Unwrapped()

    async def ensure(self, owner: Owner) -> DataKey:
        """Return the owner's key, making it if they have none; all callers at once get the same one.

        Raises:
            MasterKeyUnavailable: when the service that keeps the master key does not answer.
        """
        async with self._database.reading() as session:
            found = await SealingRepository(session).get_of_owner(owner)
        if found is not None:
            return DataKey(id=found.id, secret=await self.unwrap(found))
        async with self._database.transaction() as session:
            return await self.make(session, owner)

    async def open(self, data_key_id: str) -> bytes:
        """Return the secret of a key.

        Raises:
            DataKeyDestroyed: when it was destroyed.
            SealBroken: when its row was damaged or moved.
            MasterKeyMissing: when this process does not have its master key.
            MasterKeyUnavailable: when the service that keeps the master key does not answer.
        """
        async with self._database.reading() as session:
            found = await SealingRepository(session).get(data_key_id)
        if found is None:
            self._unwrapped.drop(data_key_id)
            raise DataKeyDestroyed
        return await self.unwrap(found)

    async def unwrap(self, key: WrappedKey) -> bytes:
        """Return the secret of a key whose row the caller has just read; raises as `open` does."""
        if secret := self._unwrapped.get(key):
            return secret
        secret = await self._master_keys.unwrap(key.master_key_id, key.wrapped, wrap_context(key.id))
        self._unwrapped.keep(key, secret)
        return secret

    async def check(self) -> None:
        """Raise `MasterKeyMissing` unless this process has every master key that wraps a data key."""
        async with self._database.reading() as session:
            used = await SealingRepository(session).list_master_keys()
        held = await asyncio.to_thread(lambda: [key_id for key_id in used if self._master_keys.holds(key_id)])
        if missing := sorted(set(used) - set(held)):
            raise MasterKeyMissing(f"this host lacks master keys that wrap data keys: {', '.join(missing)}")

    async def destroy(self, owner: Owner, *, actor: str, why: str) -> str | None:
        """Destroy the owner's key, and so every copy of what it sealed; return its id, None when there was none."""
        async with self._database.transaction() as session:
            return await destroy_data_key(session, owner, actor=actor, why=why)

    async def make(self, session: AsyncSession, owner: Owner) -> DataKey:
        """Make the key of an owner who had none, in the caller's transaction; if somebody was faster, theirs counts.

        Whichever it is, nobody destroys it before that transaction ends.

        Raises:
            DataKeyDestroyed: when theirs was destroyed since; look again.
            MasterKeyUnavailable: when the service that keeps the master key does not answer.
        """
        secret, key_id, repository = new_key(), f"k{uuid.uuid4().hex}", SealingRepository(session)
        await repository.share_master_keys()
        master_key_id, wrapped = await self._master_keys.wrap(secret, wrap_context(key_id))
        made = WrappedKey(id=key_id, master_key_id=master_key_id, wrapped=wrapped)
        if await repository.add(owner, made):
            self._unwrapped.keep(made, secret)
            return DataKey(id=key_id, secret=secret)
        found = await repository.share_of_owner(owner)
        if found is None:  # another caller's key, destroyed since
            raise DataKeyDestroyed("the owner's key is being destroyed; try again")
        return DataKey(id=found.id, secret=await self.unwrap(found))


async def hold_data_key(session: AsyncSession, owner: Owner) -> None:
    """Let nobody claim a version under the owner's key until the caller's transaction ends."""
    await SealingRepository(session).lock_of_owner(owner)


async def destroy_data_key(session: AsyncSession, owner: Owner, *, actor: str, why: str) -> str | None:
    """Destroy the owner's key within the caller's transaction; return its id, None when there was none."""
    repository = SealingRepository(session)
    destroyed = await repository.destroy(owner)
    if destroyed is not None:
        repository.record(
            actor, "data-key-destroyed", tenant=owner.tenant, subject=subject_of(owner), before=destroyed, why=why
        )
    return destroyed


def wrap_context(data_key_id: str) -> dict[str, str]:
    """Return what a wrapped key is bound to: its id, which says nothing about whose it is."""
    return {"data_key": data_key_id}


class _Unwrapped:
    """The last few thousand secrets that were unwrapped in the last minute."""

    def __init__(self) -> None:
        self._secrets: OrderedDict[str, tuple[float, bytes, bytes]] = OrderedDict()

    def get(self, key: WrappedKey) -> bytes | None:
        """Return the secret of exactly this wrapping; None when it has to be unwrapped."""
        oldest = time.monotonic() - _CACHE_SECONDS
        while self._secrets and next(iter(self._secrets.values()))[0] < oldest:
            self._secrets.popitem(last=False)
        _, wrapped, secret = self._secrets.get(key.id, (0.0, b"", b""))
        return secret if wrapped == key.wrapped else None

    def keep(self, key: WrappedKey, secret: bytes) -> None:
        self.drop(key.id)
        self._secrets[key.id] = (time.monotonic(), key.wrapped, secret)
        while len(self._secrets) > _CACHED_KEYS:
            self._secrets.popitem(last=False)

    def drop(self, data_key_id: str) -> None:
        self._secrets.pop(data_key_id, None)
