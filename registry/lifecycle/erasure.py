"""Erasing a version, or everything of an owner: first nobody can read it, then no byte of it is left.

One transaction makes tombstones, takes the aliases away and, for an owner, destroys the data key, without which no
copy anywhere can be opened. The bytes go after it. A tombstone without `removed_at` says that some may be left, or may
come back: for as long as an upload URL of that version lives, whoever holds it can put the bytes there again. Erasing
again or `reconcile` removes them, and only when no such URL is left does it say that they are gone.
"""

from __future__ import annotations

from collections.abc import Sequence

from kit.database import Database
from kit.words import counted
from registry.errors import IllegalTransition, Leased, VersionNotFound
from registry.lifecycle.aliases import point
from registry.lifecycle.remains import Remains, owner_of
from registry.lifecycle.repository import LifecycleRepository
from registry.lifecycle.schemas import Erasure, OwnerErased, Tombstone
from registry.manifest import Owner
from registry.models import State
from registry.repository import subject_of
from registry.sealing.data_keys import destroy_data_key, hold_data_key

_ERASABLE = tuple(state for state in State if state != State.ERASED)


class Eraser:
    """Makes tombstones."""

    def __init__(self, database: Database, remains: Remains, *, lease_seconds: float) -> None:
        """Erase from `database` and the object store; engines silent for `lease_seconds` do not count as serving."""
        self._database = database
        self._remains = remains
        self._lease_seconds = lease_seconds

    async def erase_version(self, version_id: str, erasure: Erasure, *, actor: str) -> Tombstone:
        """Erase one version; erasing it again removes what an earlier attempt may have left.

        Raises:
            VersionNotFound: when there is none.
            Leased: when an engine answers requests with it, unless forced.
            StorageUnavailable: when it is a tombstone, but its bytes may not all be gone: erase again.
        """
        async with self._database.transaction() as session:
            repository = LifecycleRepository(session)
            adapter = await repository.lock_adapter_of(version_id)
            if adapter is None:
                raise VersionNotFound(f"there is no version {version_id}", field="version_id")
            await self._bury(repository, [version_id], erasure, actor=actor)
            row = await repository.get_version(version_id)
            gone = row is not None and row.removed_at is not None
        if not gone:
            await self._remove(owner_of(adapter), [version_id])
        return await self._tombstone(version_id)

    async def erase_owner(self, owner: Owner, erasure: Erasure, *, actor: str) -> OwnerErased:
        """Erase every version of an owner and destroy their data key, so that no copy can be read, backups included.

        An owner of whom nothing is known has nothing to erase, which is no error. They may publish again later, under
        a new data key.

        Raises:
            Leased: when an engine answers requests with any version of theirs, unless forced.
            StorageUnavailable: when all are tombstones, but some bytes may be left: erase again.
        """
        async with self._database.transaction() as session:
            repository = LifecycleRepository(session)
            # The key first: whoever claims a version shares its row, so those listed below it are all there will be.
            await hold_data_key(session, owner)
            adapters = [row.id for row in await repository.lock_adapters_of(owner)]
            already = await repository.count_erased(adapters)
            version_ids = await repository.list_unerased(adapters)
            await self._bury(repository, version_ids, erasure, actor=actor)
            await repository.blank_suspensions(owner)
            destroyed = await destroy_data_key(session, owner, actor=actor, why=erasure.why)
            if version_ids or destroyed:
                repository.record(
                    actor,
                    "erase-owner",
                    tenant=owner.tenant,
                    subject=subject_of(owner),
                    after=counted(len(version_ids), "version"),
                    why=erasure.why,
                )
            left = await repository.list_unremoved(adapters)
        await self._remove(owner, left)
        return OwnerErased(
            owner=owner, erased=len(version_ids), already=already, data_key_destroyed=destroyed is not None
        )

    async def _bury(
        self, repository: LifecycleRepository, version_ids: Sequence[str], erasure: Erasure, *, actor: str
    ) -> None:
        """Turn versions into tombstones; the caller holds the locks of their adapters."""
        if not erasure.force:
            leased = await repository.leased_versions(version_ids, lease_seconds=self._lease_seconds)
            if leased:
                raise Leased(f"engines answer requests with {', '.join(leased)}", field="version_id", versions=leased)
        for alias in await repository.aliases_of(version_ids):
            await point(
                repository,
                alias.adapter_id,
                alias.name,
                None,
                before=alias.version_id,
                action="erase",
                actor=actor,
                why=erasure.why,
            )
        for version_id in version_ids:
            await repository.transition(
                version_id,
                State.ERASED,
                was=_ERASABLE,
                actor=actor,
                why=erasure.why,
                manifest=None,
                signature=None,
                validation=None,
                reason=None,
                reason_field=None,
            )
        await repository.delete_reports(version_ids)

    async def _remove(self, owner: Owner, version_ids: Sequence[str]) -> None:
        async with self._database.reading() as session:
            settled = await LifecycleRepository(session).list_settled(
                version_ids, settle_seconds=self._remains.settle_seconds
            )
        for version_id in version_ids:
            await self._remains.remove(owner, version_id)
        async with self._database.transaction() as session:
            await LifecycleRepository(session).mark_removed(settled)

    async def _tombstone(self, version_id: str) -> Tombstone:
        async with self._database.transaction() as session:
            row = await LifecycleRepository(session).get_version(version_id)
        if row is None or row.erased_at is None:
            raise IllegalTransition(f"version {version_id} was not erased", field="version_id")
        return Tombstone(
            version_id=row.version_id, version=row.number, erased_at=row.erased_at, removed_at=row.removed_at
        )
