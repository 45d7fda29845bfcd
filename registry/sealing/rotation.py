"""Changing the master key: every data key is wrapped anew, and no object is touched.

Idempotent: what a killed run left is wrapped by the next. Content can be read all the while, because a data key's row
always holds one whole wrapping and says by which master key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kit.database import Database
from kit.errors import MasterKeyMissing, SealBroken
from kit.master_keys import KeyFile, MasterKeys
from registry.errors import MasterKeyInUse, MasterKeyNotFound
from registry.sealing.data_keys import wrap_context
from registry.sealing.repository import SealingRepository, WrappedKey

_BATCH = 100
_AT_ONCE = 8


@dataclass(frozen=True, kw_only=True)
class Rotation:
    """What a run did; `unreadable` = ids of data keys that no master key of this process opens."""

    master_key_id: str
    rewrapped: int
    unreadable: tuple[str, ...]


async def rewrap_data_keys(
    database: Database,
    master_keys: MasterKeys,
    *,
    actor: str,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Rotation:
    """Wrap every data key under the primary master key; `on_progress` hears how many of how many are done.

    Raises:
        MasterKeyUnavailable: when the service that keeps the key does not answer; run it again.
    """
    target = await master_keys.primary_id()
    async with database.reading() as session:
        total = await SealingRepository(session).count_wrapped_otherwise(target)
    seen, rewrapped, unreadable, after = 0, 0, list[str](), ""
    on_progress(0, total)
    while batch := await _next_batch(database, target, after=after):
        done, failed = await _rewrap_batch(database, master_keys, batch)
        seen, rewrapped, after = seen + len(batch), rewrapped + done, batch[-1].id
        unreadable += failed
        on_progress(seen, max(seen, total))
    async with database.transaction() as session:
        why = f"{rewrapped} data keys wrapped anew, {len(unreadable)} unreadable"
        SealingRepository(session).record(actor, "master-key-rotated", subject=target, why=why)
    return Rotation(master_key_id=target, rewrapped=rewrapped, unreadable=tuple(unreadable))


async def add_master_key(database: Database, keys: KeyFile, *, actor: str) -> str:
    """Add a key for the next rotation and write it into the audit trail, unless one waits already; return its id."""
    async with database.transaction() as session:
        repository = SealingRepository(session)
        await repository.hold_master_keys()
        waiting = (await asyncio.to_thread(keys.ring)).next
        added = await asyncio.to_thread(keys.add_next)
        if waiting is None:
            repository.record(actor, "master-key-added", subject=added, why=None)
    return added


async def check_forgettable(database: Database, keys: KeyFile, key_id: str) -> None:
    """Raise what `forget_master_key` would raise now; nothing is changed."""
    await _require_old(keys, key_id)
    async with database.reading() as session:
        await _require_unused(SealingRepository(session), key_id)


async def forget_master_key(database: Database, keys: KeyFile, key_id: str, *, actor: str) -> None:
    """Remove a key from the key file for good, which also shuts every old copy of what it had wrapped.

    Raises:
        MasterKeyNotFound: when the file has no such key.
        MasterKeyInUse: when it is the primary one, or a data key is wrapped under it.
    """
    await _require_old(keys, key_id)
    async with database.transaction() as session:
        repository = SealingRepository(session)
        await repository.hold_master_keys()
        await _require_unused(repository, key_id)
        repository.record(actor, "master-key-forgotten", subject=key_id, why=None)
        await session.flush()
        await asyncio.to_thread(keys.forget, key_id)


async def _require_old(keys: KeyFile, key_id: str) -> None:
    ring = await asyncio.to_thread(keys.ring)
    if key_id not in ring.keys:
        raise MasterKeyNotFound(f"the key file has no master key {key_id}", field="key_id")
    if key_id == ring.primary:
        raise MasterKeyInUse(f"{key_id} is the primary master key; rotate first", field="key_id")


async def _require_unused(repository: SealingRepository, key_id: str) -> None:
    if used := (await repository.count_by_master_key()).get(key_id):
        raise MasterKeyInUse(f"{used} data keys are wrapped under {key_id}; rotate first", field="key_id")


async def _next_batch(database: Database, target: str, *, after: str) -> Sequence[WrappedKey]:
    async with database.reading() as session:
        return await SealingRepository(session).list_wrapped_otherwise(target, after=after, limit=_BATCH)


async def _rewrap_batch(
    database: Database, master_keys: MasterKeys, batch: Sequence[WrappedKey]
) -> tuple[int, list[str]]:
    """Return how many were wrapped anew, and the ids of those that could not be opened."""
    turns = asyncio.Semaphore(_AT_ONCE)

    async def rewrap(key: WrappedKey) -> WrappedKey | None:
        async with turns:
            try:
                secret = await master_keys.unwrap(key.master_key_id, key.wrapped, wrap_context(key.id))
            except (SealBroken, MasterKeyMissing):
                return None
            master_key_id, wrapped = await master_keys.wrap(secret, wrap_context(key.id))
            return WrappedKey(id=key.id, master_key_id=master_key_id, wrapped=wrapped)

    async with database.transaction() as session:
        repository = SealingRepository(session)
        await repository.share_master_keys()  # nobody forgets the key that wraps here before the rows say so
        renewed = await asyncio.gather(*(rewrap(key) for key in batch))
        done = await repository.rewrap([(old, new) for old, new in zip(batch, renewed, strict=True) if new])
    return done, [old.id for old, new in zip(batch, renewed, strict=True) if new is None]
