"""Reading the audit trail: of a version, of an adapter, of an owner; the newest first."""

from __future__ import annotations

from collections.abc import Sequence

from kit.database import Database
from registry.catalog.cursor import read_cursor, write_cursor
from registry.errors import AdapterNotFound, VersionNotFound
from registry.lifecycle.repository import LifecycleRepository
from registry.lifecycle.schemas import AuditEntry, AuditPage
from registry.manifest import Owner
from registry.models import AuditRow


class AuditTrail:
    """What happened; entries are only ever added, and outlive what they speak of."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of_all(self, *, cursor: str | None, limit: int) -> AuditPage:
        """Return one page of everything: also base models, engines, keys and policies, which belong to no adapter.

        Raises:
            InvalidReference: for a cursor that no earlier page gave.
        """
        before = _before(cursor)
        async with self._database.transaction() as session:
            rows = await LifecycleRepository(session).audit_of_all(before=before, limit=limit + 1)
        return _page(rows, limit)

    async def of_version(self, version_id: str, *, cursor: str | None, limit: int) -> AuditPage:
        """Return one page of a version's entries.

        Raises:
            VersionNotFound: when there is no such version.
            InvalidReference: for a cursor that no earlier page gave.
        """
        before = _before(cursor)
        async with self._database.transaction() as session:
            repository = LifecycleRepository(session)
            if await repository.get_version(version_id) is None:
                raise VersionNotFound(f"there is no version {version_id}", field="version_id")
            rows = await repository.audit_of_version(version_id, before=before, limit=limit + 1)
        return _page(rows, limit)

    async def of_adapter(self, owner: Owner, adapter: str, *, cursor: str | None, limit: int) -> AuditPage:
        """Return one page of an adapter's entries and of those that concern its whole owner.

        Raises:
            AdapterNotFound: when there is no such adapter.
            InvalidReference: for a cursor that no earlier page gave.
        """
        before = _before(cursor)
        async with self._database.transaction() as session:
            repository = LifecycleRepository(session)
            adapter_id = await repository.get_adapter(owner, adapter)
            if adapter_id is None:
                raise AdapterNotFound(f"{owner.path} has no adapter {adapter}", field="adapter")
            rows = await repository.audit_of_adapter(adapter_id, owner, before=before, limit=limit + 1)
        return _page(rows, limit)

    async def of_owner(self, owner: Owner, *, cursor: str | None, limit: int) -> AuditPage:
        """Return one page of what was done to an owner and to their adapters: every transition, every alias moved.

        Raises:
            InvalidReference: for a cursor that no earlier page gave.
        """
        before = _before(cursor)
        async with self._database.transaction() as session:
            rows = await LifecycleRepository(session).audit_of_owner(owner, before=before, limit=limit + 1)
        return _page(rows, limit)


def _before(cursor: str | None) -> int | None:
    key = read_cursor(cursor, "audit", int)
    return None if key is None else int(key[0])


def _page(rows: Sequence[AuditRow], limit: int) -> AuditPage:
    entries = tuple(
        AuditEntry(
            id=row.id,
            at=row.at,
            actor=row.actor,
            action=row.action,
            tenant=row.tenant,
            subject=row.subject,
            version_id=row.version_id,
            before=row.before,
            after=row.after,
            why=row.why,
        )
        for row in rows[:limit]
    )
    return AuditPage(entries=entries, next_cursor=write_cursor("audit", rows[limit - 1].id) if rows[limit:] else None)
