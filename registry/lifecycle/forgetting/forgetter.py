"""After an owner was erased: what is left of them, who still holds it, and the end of their name.

Tombstones name their owner, because the bytes lie under the owner's prefix as long as some may be left. When the last
is gone and no engine holds anything, nothing needs the name any more.
"""

from __future__ import annotations

import uuid

from kit.database import Database
from kit.storage import ObjectStorage
from registry.lifecycle.forgetting.repository import ForgettingRepository
from registry.lifecycle.schemas import OwnerForgotten, OwnerRemains
from registry.manifest import Owner
from registry.publishing.layout import owner_prefix
from registry.repository import subject_of


class Forgetter:
    """Says what is left of owners, and forgets those of whom nothing is."""

    def __init__(
        self, database: Database, storage: ObjectStorage, *, lease_seconds: float, settle_seconds: float
    ) -> None:
        """Work on `database` and the object store.

        Args:
            database: where tombstones are.
            storage: where bytes were.
            lease_seconds: an engine that was silent for so long has lapsed.
            settle_seconds: how long after it was signed an upload URL may still be written to.
        """
        self._database = database
        self._storage = storage
        self._lease_seconds = lease_seconds
        self._settle_seconds = settle_seconds

    async def remains(self, owner: Owner) -> OwnerRemains:
        """Return what the registry has of an owner, and which engines say that they hold any of it."""
        async with self._database.reading() as session:
            repository = ForgettingRepository(session)
            found = await repository.remains(owner)
            holders = await repository.holders(owner, lease_seconds=self._lease_seconds)
            settled_at = await repository.settled_at(owner, settle_seconds=self._settle_seconds)
            version_ids = await repository.version_ids(owner)
        return OwnerRemains.model_validate(
            {**found, "settled_at": settled_at, "version_ids": tuple(version_ids), "holders": tuple(holders)}
        )

    async def forget_owner(self, owner: Owner, *, actor: str) -> OwnerForgotten:
        """Take an owner's name out of what is left of them; done again, it changes nothing.

        Nobody who is not erased is forgotten, nor while bytes may be left or an engine holds something: `forgotten` is
        False then. Whoever publishes under that name later is a new owner, whose versions begin with 1.

        Raises:
            StorageUnavailable: nothing was forgotten.
        """
        async with self._database.transaction() as session:
            repository = ForgettingRepository(session)
            await repository.keep_out(owner)
            found = await repository.remains(owner)
            held = await repository.holders(owner, lease_seconds=self._lease_seconds)
            if found["versions"] > found["erased"] or found["unremoved"] or found["data_keys"] or held:
                return OwnerForgotten(forgotten=False, adapters=found["adapters"])
            await self._sweep(owner)  # what lies there and belongs to no version: nobody can open it, nobody needs it
            names = {adapter_id: f"erased:{uuid.uuid4().hex}" for adapter_id in await repository.adapter_ids(owner)}
            for adapter_id, name in names.items():
                await repository.rename(adapter_id, name)
            await repository.forget(owner, pseudonym=f"erased:{uuid.uuid4().hex}")
            if names:
                repository.record(
                    actor,
                    "forget-owner",
                    tenant=owner.tenant,
                    subject=subject_of(owner),
                    after=f"{len(names)} adapters",
                )
        return OwnerForgotten(forgotten=True, adapters=len(names))

    async def _sweep(self, owner: Owner) -> None:
        prefix = owner_prefix(owner)
        for upload in await self._storage.multipart.list_unfinished(prefix):
            await self._storage.multipart.abort(upload)
        await self._storage.erase(prefix)
