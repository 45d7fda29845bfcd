"""SQL of what happens to a version after it is ready."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, cast

from sqlalchemy import (
    ColumnElement,
    Select,
    any_,
    delete,
    exists,
    func,
    literal,
    or_,
    select,
    true,
    tuple_,
    union,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, insert

from registry.lifecycle.schemas import MoveAction
from registry.manifest import Owner
from registry.models import (
    AdapterRow,
    AliasMoveRow,
    AliasRow,
    AuditRow,
    EngineHoldingRow,
    EngineRow,
    EvaluationReportRow,
    State,
    SuspensionRow,
    VersionRow,
    VersionTranscriptRow,
)
from registry.repository import RegistryRepository, obstacle, subject_of


def leased(lease_seconds: float) -> ColumnElement[bool]:
    """SQL of "an engine that is alive answers requests with this version", for statements that select a VersionRow.

    An engine that has been silent for `lease_seconds` has stopped serving by itself.
    """
    return (
        exists()
        .where(
            EngineHoldingRow.version_id == VersionRow.version_id,
            EngineHoldingRow.leases > 0,
            EngineRow.id == EngineHoldingRow.engine_id,
            EngineRow.left_at.is_(None),
            EngineRow.last_seen_at > func.now() - timedelta(seconds=lease_seconds),
        )
        .correlate(VersionRow)
    )


def one_of(column: Any, values: Sequence[str] | Sequence[int]) -> ColumnElement[bool]:
    """SQL of "the column has one of these values": one parameter, however many there are."""
    return cast("ColumnElement[bool]", column == any_(literal(list(values), ARRAY(column.type))))


_DEAD = (State.ERASED, State.REJECTED)


class LifecycleRepository(RegistryRepository):
    """What steering reads and writes, within one transaction.

    Whoever moves aliases, retires or erases locks the adapter first, so that these never race with one another;
    publishing does not wait for that lock.
    """

    async def lock_adapter(self, owner: Owner, name: str) -> int | None:
        """Return the adapter's number; nobody else steers the adapter until this transaction ends."""
        key = tuple_(AdapterRow.tenant, AdapterRow.user_id, AdapterRow.name)
        statement = select(AdapterRow.id).where(key == (owner.tenant, owner.user, name))
        return await self._session.scalar(statement.with_for_update(key_share=True))

    async def lock_adapter_of(self, version_id: str) -> AdapterRow | None:
        """Return the adapter of a version; nobody else steers it until this transaction ends."""
        found = select(VersionRow.adapter_id).where(VersionRow.version_id == version_id).scalar_subquery()
        statement = select(AdapterRow).where(AdapterRow.id == found)
        return await self._session.scalar(statement.with_for_update(key_share=True))

    async def get_adapter_of(self, version_id: str) -> AdapterRow | None:
        """Return the adapter of a version."""
        statement = select(AdapterRow).join(VersionRow, VersionRow.adapter_id == AdapterRow.id)
        return await self._session.scalar(statement.where(VersionRow.version_id == version_id))

    async def lock_adapters_of(self, owner: Owner) -> list[AdapterRow]:
        """Return every adapter of an owner, by number; nobody else steers them until this transaction ends."""
        statement = select(AdapterRow).where(AdapterRow.tenant == owner.tenant, AdapterRow.user_id == owner.user)
        return list(await self._session.scalars(statement.order_by(AdapterRow.id).with_for_update(key_share=True)))

    async def has_adapters(self, owner: Owner) -> bool:
        """Say whether the owner ever published anything."""
        statement = select(exists().where(AdapterRow.tenant == owner.tenant, AdapterRow.user_id == owner.user))
        return bool(await self._session.scalar(statement))

    async def get_obstacle(self, version_id: str) -> str | None:
        """Return why a version that exists may not be served."""
        statement = select(obstacle()).select_from(VersionRow)
        statement = statement.join(AdapterRow, AdapterRow.id == VersionRow.adapter_id)
        return await self._session.scalar(statement.where(VersionRow.version_id == version_id))

    # Aliases

    async def set_alias(self, adapter_id: int, name: str, version_id: str) -> None:
        """Let an alias name a version; the caller holds the adapter's lock."""
        statement = insert(AliasRow).values(adapter_id=adapter_id, name=name, version_id=version_id)
        changed = {"version_id": version_id, "moved_at": func.now()}
        await self._session.execute(
            statement.on_conflict_do_update(index_elements=["adapter_id", "name"], set_=changed)
        )

    async def remove_alias(self, adapter_id: int, name: str) -> None:
        """Remove an alias; the caller holds the adapter's lock."""
        await self._session.execute(delete(AliasRow).where(AliasRow.adapter_id == adapter_id, AliasRow.name == name))

    def add_move(
        self,
        adapter_id: int,
        name: str,
        *,
        action: MoveAction,
        version_id: str | None,
        before: str | None,
        actor: str,
        why: str | None,
    ) -> None:
        """Remember one move of an alias, for history and rollback."""
        row = AliasMoveRow(
            adapter_id=adapter_id,
            name=name,
            action=action,
            version_id=version_id,
            before_version_id=before,
            actor=actor,
            why=why,
        )
        self._session.add(row)

    async def last_moves(self, adapter_id: int, name: str, *, limit: int) -> list[AliasMoveRow]:
        """Return the last moves of one alias, the oldest of them first."""
        rows = await self._session.scalars(
            select(AliasMoveRow)
            .where(AliasMoveRow.adapter_id == adapter_id, AliasMoveRow.name == name)
            .order_by(AliasMoveRow.id.desc())
            .limit(limit)
        )
        return list(rows)[::-1]

    async def list_moves(
        self, adapter_id: int, *, alias: str | None, before: int | None, limit: int
    ) -> list[tuple[AliasMoveRow, int | None]]:
        """Return an adapter's alias moves numbered below `before` with the version's number, the newest first."""
        statement = select(AliasMoveRow, VersionRow.number).where(AliasMoveRow.adapter_id == adapter_id)
        statement = statement.outerjoin(VersionRow, VersionRow.version_id == AliasMoveRow.version_id)
        if alias is not None:
            statement = statement.where(AliasMoveRow.name == alias)
        if before is not None:
            statement = statement.where(AliasMoveRow.id < before)
        rows = await self._session.execute(statement.order_by(AliasMoveRow.id.desc()).limit(limit))
        return [(row[0], row[1]) for row in rows]

    async def aliases_of(self, version_ids: Sequence[str]) -> list[AliasRow]:
        """Return the aliases that name any of these versions."""
        statement = select(AliasRow).where(one_of(AliasRow.version_id, version_ids))
        return list(await self._session.scalars(statement.order_by(AliasRow.adapter_id, AliasRow.name)))

    # Evaluation

    async def newest_report(self, version_id: str) -> EvaluationReportRow | None:
        """Return the report that was attached last."""
        statement = select(EvaluationReportRow).where(EvaluationReportRow.version_id == version_id)
        return await self._session.scalar(statement.order_by(EvaluationReportRow.id.desc()).limit(1))

    async def add_report(self, version_id: str, report: dict[str, Any], *, actor: str) -> EvaluationReportRow:
        """Attach a report."""
        row = EvaluationReportRow(version_id=version_id, report=report, actor=actor)
        self._session.add(row)
        await self._session.flush()
        await self._session.refresh(row)
        return row

    async def list_reports(self, version_id: str, *, limit: int) -> list[EvaluationReportRow]:
        """Return a version's attached reports, the newest first."""
        statement = select(EvaluationReportRow).where(EvaluationReportRow.version_id == version_id)
        return list(await self._session.scalars(statement.order_by(EvaluationReportRow.id.desc()).limit(limit)))

    # Suspension

    async def add_suspension(self, owner: Owner, adapter: str, *, actor: str, why: str) -> bool:
        """Stop a user ("") or one adapter; say whether it was serving until now."""
        statement = (
            insert(SuspensionRow)
            .values(tenant=owner.tenant, user_id=owner.user, adapter=adapter, actor=actor, why=why)
            .on_conflict_do_nothing()
            .returning(SuspensionRow.adapter)
        )
        return (await self._session.scalar(statement)) is not None

    async def remove_suspension(self, owner: Owner, adapter: str) -> bool:
        """Let a user ("") or one adapter serve again; say whether it was suspended."""
        statement = (
            delete(SuspensionRow)
            .where(
                SuspensionRow.tenant == owner.tenant,
                SuspensionRow.user_id == owner.user,
                SuspensionRow.adapter == adapter,
            )
            .returning(SuspensionRow.adapter)
        )
        return (await self._session.scalar(statement)) is not None

    async def blank_suspensions(self, owner: Owner) -> None:
        """Forget who suspended an owner and why; the suspensions stay."""
        await self._session.execute(
            update(SuspensionRow)
            .where(SuspensionRow.tenant == owner.tenant, SuspensionRow.user_id == owner.user)
            .values(actor="", why="")
            .execution_options(synchronize_session=False)
        )

    async def get_suspension(self, owner: Owner, adapter: str) -> SuspensionRow | None:
        """Return the suspension of a user ("") or of one adapter."""
        return await self._session.get(SuspensionRow, (owner.tenant, owner.user, adapter), populate_existing=True)

    async def list_suspensions(self, tenant: str, *, after: tuple[str, str] | None, limit: int) -> list[SuspensionRow]:
        """Return a tenant's suspensions after (user, adapter), in that order."""
        statement = select(SuspensionRow).where(SuspensionRow.tenant == tenant)
        key = tuple_(SuspensionRow.user_id, SuspensionRow.adapter)
        if after is not None:
            statement = statement.where(key > after)
        statement = statement.order_by(SuspensionRow.user_id, SuspensionRow.adapter).limit(limit)
        return list(await self._session.scalars(statement))

    # Erasure

    async def leased_versions(self, version_ids: Sequence[str], *, lease_seconds: float) -> list[str]:
        """Return which of these versions an engine answers requests with."""
        statement = select(VersionRow.version_id).where(
            one_of(VersionRow.version_id, version_ids), leased(lease_seconds)
        )
        return list(await self._session.scalars(statement.order_by(VersionRow.version_id)))

    async def list_unerased(self, adapter_ids: Sequence[int]) -> list[str]:
        """Return the ids of these adapters' versions that still have content."""
        statement = select(VersionRow.version_id).where(
            one_of(VersionRow.adapter_id, adapter_ids), VersionRow.state != State.ERASED
        )
        return list(await self._session.scalars(statement.order_by(VersionRow.version_id)))

    async def count_erased(self, adapter_ids: Sequence[int]) -> int:
        """Return how many of these adapters' versions are tombstones."""
        statement = select(func.count()).where(
            one_of(VersionRow.adapter_id, adapter_ids), VersionRow.state == State.ERASED
        )
        return await self._session.scalar(statement) or 0

    async def delete_reports(self, version_ids: Sequence[str]) -> None:
        """Delete what was attached to these versions, and which transcripts they came from."""
        for table in (EvaluationReportRow, VersionTranscriptRow):
            await self._session.execute(delete(table).where(one_of(table.version_id, version_ids)))

    async def list_unremoved(self, adapter_ids: Sequence[int]) -> list[str]:
        """Return the ids of these adapters' tombstones whose bytes may not all be gone."""
        statement = select(VersionRow.version_id).where(
            one_of(VersionRow.adapter_id, adapter_ids),
            VersionRow.state == State.ERASED,
            VersionRow.removed_at.is_(None),
        )
        return list(await self._session.scalars(statement.order_by(VersionRow.version_id)))

    async def list_settled(self, version_ids: Sequence[str], *, settle_seconds: float) -> list[str]:
        """Return those of these versions whose bytes nobody can bring back who begins to remove them now.

        A dead version for which an upload URL may have been signed less than `settle_seconds` ago is not among them:
        whoever holds it can put the bytes there again, before or after they are removed.
        """
        settled = last_signed() <= func.now() - timedelta(seconds=settle_seconds)
        statement = select(VersionRow.version_id).where(
            one_of(VersionRow.version_id, version_ids),
            or_(VersionRow.state == State.RETIRED, VersionRow.state.in_(_DEAD) & settled),
        )
        return list(await self._session.scalars(statement))

    async def mark_removed(self, version_ids: Sequence[str]) -> list[str]:
        """Remember that no byte of these versions is left; return those of which it was not known.

        They were settled before they were removed. What may be served by now is passed over.
        """
        statement = (
            update(VersionRow)
            .where(one_of(VersionRow.version_id, version_ids), VersionRow.state.in_((State.RETIRED, *_DEAD)))
            .where(VersionRow.removed_at.is_(None))
            .values(removed_at=func.now())
            .returning(VersionRow.version_id)
        )
        return list(await self._session.scalars(statement.execution_options(synchronize_session=False)))

    # Audit trail

    async def audit_of_all(self, *, before: int | None, limit: int) -> list[AuditRow]:
        """Return every entry numbered below `before`, the newest first."""
        return await self._audit(_newest(true(), before=before, limit=limit))

    async def audit_of_version(self, version_id: str, *, before: int | None, limit: int) -> list[AuditRow]:
        """Return a version's entries numbered below `before`, the newest first."""
        return await self._audit(_newest(AuditRow.version_id == version_id, before=before, limit=limit))

    async def audit_of_owner(self, owner: Owner, *, before: int | None, limit: int) -> list[AuditRow]:
        """Return the entries of an owner and of all their adapters, the newest first; one index scan for each."""
        of_adapter = _newest(AuditRow.adapter_id == AdapterRow.id, before=before, limit=limit).correlate(AdapterRow)
        of_adapters = of_adapter.lateral()
        theirs = (AdapterRow.tenant == owner.tenant) & (AdapterRow.user_id == owner.user)
        either = union(
            select(of_adapters.c.id).select_from(AdapterRow).join(of_adapters, true()).where(theirs),
            _newest(AuditRow.subject == subject_of(owner), before=before, limit=limit),
        ).subquery()
        return await self._audit(select(either.c.id).order_by(either.c.id.desc()).limit(limit))

    async def audit_of_adapter(
        self, adapter_id: int, owner: Owner, *, before: int | None, limit: int
    ) -> list[AuditRow]:
        """Return an adapter's entries and those of its whole owner, the newest first; one index scan for each."""
        whole_owner = (AuditRow.subject == subject_of(owner)) & AuditRow.adapter_id.is_(None)
        either = union(
            _newest(AuditRow.adapter_id == adapter_id, before=before, limit=limit),
            _newest(whole_owner, before=before, limit=limit),
        ).subquery()
        return await self._audit(select(either.c.id).order_by(either.c.id.desc()).limit(limit))

    async def _audit(self, ids: Select[Any]) -> list[AuditRow]:
        statement = select(AuditRow).where(AuditRow.id.in_(ids)).order_by(AuditRow.id.desc())
        return list(await self._session.scalars(statement))


def last_signed() -> ColumnElement[Any]:
    """SQL of when the last upload URL of a version that is dead can have been signed: before it was ready, or died."""
    died = (
        select(func.max(AuditRow.at))
        .where(AuditRow.version_id == VersionRow.version_id, AuditRow.after.in_((State.ERASED, State.REJECTED)))
        .correlate(VersionRow)
        .scalar_subquery()
    )
    return func.coalesce(VersionRow.ready_at, died, VersionRow.erased_at, func.now())


def _newest(condition: ColumnElement[bool], *, before: int | None, limit: int) -> Select[Any]:
    statement = select(AuditRow.id).where(condition)
    if before is not None:
        statement = statement.where(AuditRow.id < before)
    return statement.order_by(AuditRow.id.desc()).limit(limit)
