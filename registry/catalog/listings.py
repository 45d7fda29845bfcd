"""Who has what: adapters and versions by page, one of each in detail, and what a version came from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row

from kit.database import Database
from registry.catalog.cursor import read_cursor, write_cursor
from registry.catalog.repository import AdapterFilter, CatalogRepository, VersionFilter
from registry.catalog.schemas import (
    AdapterDetail,
    AdapterPage,
    AdapterSummary,
    FoundVersion,
    FoundVersionPage,
    LiveVersion,
    VersionDetail,
    VersionPage,
    VersionSummary,
)
from registry.errors import AdapterNotFound, AliasNotFound, VersionNotFound
from registry.manifest import MAX_NUMBER, AdapterRef, Owner

_ADAPTER_KEYS: dict[str, tuple[type, ...]] = {"names": (str, str), "created": (datetime, int)}
_VERSION_TIMES = ("created_at", "ready_at", "suspended_at", "retired_at", "removed_at", "erased_at")


class Listings:
    """Answers who has what."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_adapters(self, wanted: AdapterFilter, *, cursor: str | None, limit: int) -> AdapterPage:
        """Return one page of the adapters that a filter lets through.

        Raises:
            InvalidReference: for a cursor that no earlier page of such a listing gave.
        """
        after = read_cursor(cursor, wanted.order, *_ADAPTER_KEYS[wanted.order])
        async with self._database.reading() as session:
            rows = await CatalogRepository(session).list_adapters(wanted, after=after, limit=limit + 1)
        following = None
        if len(rows) > limit:
            last = rows[limit - 1]
            key = (last.user_id, last.name) if wanted.order == "names" else (last.created_at, last.id)
            following = write_cursor(wanted.order, *key)
        return AdapterPage(adapters=tuple(_summary(row) for row in rows[:limit]), next_cursor=following)

    async def show_adapter(self, owner: Owner, adapter: str) -> AdapterDetail:
        """Return one adapter.

        Raises:
            AdapterNotFound: when the owner has no such adapter.
        """
        async with self._database.reading() as session:
            repository = CatalogRepository(session)
            adapter_id = await require_adapter(repository, owner, adapter)
            row = await repository.get_summary(adapter_id)
            states = await repository.count_states(adapter_id)
        if row is None:
            raise _no_adapter(owner, adapter)
        return AdapterDetail(**dict(_summary(row)), states=states)

    async def list_versions(self, owner: Owner, adapter: str, *, cursor: str | None, limit: int) -> VersionPage:
        """Return one page of an adapter's versions in every state, the newest first.

        Raises:
            AdapterNotFound: when the owner has no such adapter.
            InvalidReference: for a cursor that no earlier page gave.
        """
        key = read_cursor(cursor, "versions", int)
        async with self._database.reading() as session:
            repository = CatalogRepository(session)
            adapter_id = await require_adapter(repository, owner, adapter)
            below = None if key is None else min(key[0], MAX_NUMBER)
            rows = await repository.list_versions(adapter_id, below=below, limit=limit + 1)
        following = write_cursor("versions", rows[limit - 1].number) if len(rows) > limit else None
        found = tuple(VersionSummary(**_version(row)) for row in rows[:limit])
        return VersionPage(versions=found, next_cursor=following)

    async def show_version(self, ref: AdapterRef) -> VersionDetail:
        """Return everything that is known of the version that a reference names, whatever its state.

        Raises:
            AdapterNotFound, AliasNotFound, VersionNotFound: for the first part of the name that is unknown.
        """
        async with self._database.reading() as session:
            repository = CatalogRepository(session)
            row = None if (ref.version or 0) > MAX_NUMBER else await repository.get_detail(ref)
            if row is None:
                await require_adapter(repository, ref.owner, ref.adapter)
                missing = AliasNotFound if ref.version is None else VersionNotFound
                raise missing(f"{ref} does not exist", field="selector")
        return _detail(row)

    async def find_versions(self, wanted: VersionFilter, *, cursor: str | None, limit: int) -> FoundVersionPage:
        """Return one page of a tenant's versions: those trained on a transcript, for a base, of a user.

        Raises:
            InvalidReference: for a cursor that no earlier page of such a listing gave.
        """
        after = read_cursor(cursor, "found", int, int)
        async with self._database.reading() as session:
            rows = await CatalogRepository(session).find_versions(wanted, after=after, limit=limit + 1)
        following = None
        if len(rows) > limit:
            following = write_cursor("found", rows[limit - 1].adapter_id, rows[limit - 1].number)
        return FoundVersionPage(
            versions=tuple(FoundVersion(**_found(row)) for row in rows[:limit]), next_cursor=following
        )


async def require_adapter(repository: CatalogRepository, owner: Owner, adapter: str) -> int:
    """Return an adapter's number.

    Raises:
        AdapterNotFound: when the owner has no such adapter.
    """
    found = await repository.get_adapter(owner, adapter)
    if found is None:
        raise _no_adapter(owner, adapter)
    return found


def _no_adapter(owner: Owner, adapter: str) -> AdapterNotFound:
    return AdapterNotFound(f"{owner.path} has no adapter {adapter}", field="adapter")


def _summary(row: Row[Any]) -> AdapterSummary:
    live = None
    if row.live_version_id is not None:
        live = LiveVersion(
            version_id=row.live_version_id,
            version=row.live_number,
            state=row.live_state,
            base_id=row.live_base_id,
            size_bytes=row.live_size_bytes,
            ready_at=row.live_ready_at,
            own_loss=_number(row.live_own_loss),
        )
    return AdapterSummary(
        owner=Owner(tenant=row.tenant, user=row.user_id),
        adapter=row.name,
        created_at=row.created_at,
        aliases=row.aliases or {},
        versions=row.versions,
        suspended=row.suspended,
        live=live,
    )


def _number(text: str | None) -> float | None:
    """An evaluation is whatever its publisher said, so that a loss may be a word."""
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _version(row: Row[Any]) -> dict[str, Any]:
    times = {name: getattr(row, name) for name in _VERSION_TIMES}
    named = ("version_id", "state", "base_id", "content_digest", "size_bytes", "reason", "reason_field")
    plain = {name: getattr(row, name) for name in named}
    return {**plain, **times, "version": row.number, "aliases": _names(row.aliases)}


def _names(aliases: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(aliases or ())


def _found(row: Row[Any]) -> dict[str, Any]:
    return {**_version(row), "owner": Owner(tenant=row.tenant, user=row.user_id), "adapter": row.name}


def _detail(row: Row[Any]) -> VersionDetail:
    return VersionDetail(
        **_found(row),
        obstacle=row.obstacle,
        manifest=row.manifest,
        manifest_digest=row.manifest_digest,
        sealed_bytes=row.sealed_bytes,
        signed=row.signature is not None,
        validation=row.validation,
        report=row.report,
    )
