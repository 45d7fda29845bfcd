"""SQL of retention and reconcile. Every comparison of times is the database's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Integer, and_, cast, delete, exists, func, select, tuple_

from registry.lifecycle.repository import LifecycleRepository, leased, one_of
from registry.manifest import Owner
from registry.models import (
    BEGIN,
    BEGIN_AGAIN,
    AdapterRow,
    AliasRow,
    AuditRow,
    IdempotentRequestRow,
    State,
    TenantPolicyRow,
    VersionRow,
)

_UNFINISHED = (State.PENDING, State.UPLOADED)


@dataclass(frozen=True, kw_only=True)
class Known:
    """What upkeep needs to know of a version."""

    version_id: str
    adapter_id: int
    owner: Owner
    state: str
    sealed_bytes: int | None
    removed: bool

    @property
    def gone(self) -> bool:
        """Whether no byte of it may be left."""
        return self.state in (State.ERASED, State.REJECTED) or (self.state == State.RETIRED and self.removed)


class UpkeepRepository(LifecycleRepository):
    """What upkeep reads and writes, within one transaction."""

    async def list_unfinished(self, *, after: str, older_seconds: float, limit: int) -> list[Known]:
        """Return publishes that nobody began (again) within `older_seconds` and that did not end."""
        return await self._known(_abandoned(older_seconds), after=after, limit=limit)

    async def is_abandoned(self, version_id: str, *, older_seconds: float) -> bool:
        """Say whether `list_unfinished` would return this version."""
        condition = (VersionRow.version_id == version_id, _abandoned(older_seconds))
        return bool(await self._known(*condition, after="", limit=1))

    async def list_unremoved_anywhere(self, *, after: str, limit: int) -> list[Known]:
        """Return erased and rejected versions whose bytes may not all be gone."""
        dead = VersionRow.state.in_((State.ERASED, State.REJECTED))
        return await self._known(dead, VersionRow.removed_at.is_(None), after=after, limit=limit)

    async def list_served(self, *, after: str, limit: int) -> list[Known]:
        """Return versions that must have their object, by id."""
        return await self._known(VersionRow.state.in_((State.READY, State.SUSPENDED)), after=after, limit=limit)

    async def list_removable(
        self, *, after: str, default_seconds: int, lease_seconds: float, limit: int
    ) -> list[Known]:
        """Return retired versions whose tenant's delay has passed and with which no engine answers requests."""
        own = cast(TenantPolicyRow.policy["remove_after_seconds"].as_string(), Integer)
        delay = func.coalesce(
            select(own).where(TenantPolicyRow.tenant == AdapterRow.tenant).correlate(AdapterRow).scalar_subquery(),
            default_seconds,
        )
        due = VersionRow.retired_at <= func.now() - delay * func.make_interval(0, 0, 0, 0, 0, 0, 1)
        waiting = and_(VersionRow.state == State.RETIRED, VersionRow.removed_at.is_(None))
        return await self._known(waiting, due, ~leased(lease_seconds), after=after, limit=limit)

    async def find_known(self, version_ids: Sequence[str]) -> dict[str, Known]:
        """Return what is known of these versions, by id; those without a row are left out."""
        found = await self._known(one_of(VersionRow.version_id, version_ids), after="", limit=len(version_ids))
        return {known.version_id: known for known in found}

    async def _known(self, *conditions: ColumnElement[bool], after: str, limit: int) -> list[Known]:
        statement = (
            select(
                VersionRow.version_id,
                VersionRow.adapter_id,
                AdapterRow.tenant,
                AdapterRow.user_id,
                VersionRow.state,
                VersionRow.sealed_bytes,
                VersionRow.removed_at.is_not(None).label("removed"),
            )
            .join(AdapterRow, AdapterRow.id == VersionRow.adapter_id)
            .where(VersionRow.version_id > after, *conditions)
        )
        rows = await self._session.execute(statement.order_by(VersionRow.version_id).limit(limit))
        return [_known(row) for row in rows]

    async def list_adapters_from(self, *, after: int, limit: int) -> list[tuple[int, str]]:
        """Return the numbers and tenants of the adapters after one, by number."""
        statement = select(AdapterRow.id, AdapterRow.tenant).where(AdapterRow.id > after)
        rows = await self._session.execute(statement.order_by(AdapterRow.id).limit(limit))
        return [(row[0], row[1]) for row in rows]

    async def hold_adapter(self, adapter_id: int) -> None:
        """Let nobody else steer an adapter until this transaction ends."""
        statement = select(AdapterRow.id).where(AdapterRow.id == adapter_id).with_for_update(key_share=True)
        await self._session.execute(statement)

    async def list_superfluous(self, keep: dict[int, int], *, lease_seconds: float) -> list[tuple[int, str]]:
        """Return (adapter, version) of ready versions beyond the newest `keep[adapter]` that nothing needs.

        What an alias names and what an engine answers requests with is needed; it counts among the newest.
        """
        age = func.row_number().over(partition_by=VersionRow.adapter_id, order_by=VersionRow.number.desc())
        ranked = (
            select(VersionRow.adapter_id, VersionRow.version_id, VersionRow.number, age.label("age"))
            .where(one_of(VersionRow.adapter_id, list(keep)), VersionRow.state == State.READY)
            .subquery()
        )
        beyond = ranked.c.age > min(keep.values(), default=1)
        aliased = exists().where(AliasRow.version_id == ranked.c.version_id)
        in_use = exists().where(VersionRow.version_id == ranked.c.version_id, leased(lease_seconds))
        statement = select(ranked.c.adapter_id, ranked.c.version_id, ranked.c.age).where(beyond, ~aliased, ~in_use)
        rows = await self._session.execute(statement.order_by(ranked.c.adapter_id, ranked.c.number))
        return [(row[0], row[1]) for row in rows if row[2] > keep[row[0]]]

    async def forget_requests(self, *, older_seconds: float, limit: int) -> int:
        """Forget idempotency keys that are too old to be asked for again; return how many."""
        old = IdempotentRequestRow.at <= func.now() - timedelta(seconds=older_seconds)
        key = tuple_(IdempotentRequestRow.tenant, IdempotentRequestRow.key)
        oldest = select(IdempotentRequestRow.tenant, IdempotentRequestRow.key).where(old)
        statement = delete(IdempotentRequestRow).where(key.in_(oldest.order_by(IdempotentRequestRow.at).limit(limit)))
        rows = await self._session.execute(
            statement.returning(IdempotentRequestRow.key).execution_options(synchronize_session=False)
        )
        return len(rows.all())

    async def count_old_requests(self, *, older_seconds: float) -> int:
        """Return how many idempotency keys are too old to be asked for again."""
        old = IdempotentRequestRow.at <= func.now() - timedelta(seconds=older_seconds)
        return await self._session.scalar(select(func.count()).select_from(IdempotentRequestRow).where(old)) or 0


def _abandoned(older_seconds: float) -> ColumnElement[bool]:
    begun = (
        select(func.max(AuditRow.at))
        .where(AuditRow.version_id == VersionRow.version_id, AuditRow.action.in_((BEGIN, BEGIN_AGAIN)))
        .correlate(VersionRow)
        .scalar_subquery()
    )
    old = func.coalesce(begun, VersionRow.created_at) <= func.now() - timedelta(seconds=older_seconds)
    return and_(VersionRow.state.in_(_UNFINISHED), old)


def _known(row: Any) -> Known:
    return Known(
        version_id=row[0],
        adapter_id=row[1],
        owner=Owner(tenant=row[2], user=row[3]),
        state=row[4],
        sealed_bytes=row[5],
        removed=row[6],
    )
