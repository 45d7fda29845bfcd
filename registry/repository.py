"""What every part of the registry reads and writes. Nothing in a repository commits; `None` means "there is none"."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Text, case, exists, func, literal, or_, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from kit.canonical import sha256_json
from registry.manifest import Owner, RegisteredBase
from registry.models import (
    AdapterRow,
    AliasRow,
    AuditRow,
    BaseModelRow,
    State,
    SuspensionRow,
    TenantPolicyRow,
    VersionRow,
)

_COUNTED_BELOW = 200_000
_VERSIONS_ESTIMATED = text("select reltuples from pg_class where oid = 'adapter_version'::regclass")
_STATES_ESTIMATED = text(
    "select most_common_vals::text::text[], most_common_freqs from pg_stats"
    " where schemaname = current_schema() and tablename = 'adapter_version' and attname = 'state'"
)


def servable() -> ColumnElement[bool]:
    """SQL of "this version may be served", for a statement that selects from VersionRow joined with AdapterRow.

    This is the one rule: resolve, grants, alias moves and the engines' heartbeats all ask it.
    """
    return (VersionRow.state == State.READY) & ~_suspended("", AdapterRow.name)


def obstacle() -> ColumnElement[str | None]:
    """SQL of why this version may not be served, for the same statements; NULL exactly where `servable` is true."""
    return case(
        (VersionRow.state != State.READY, VersionRow.state),
        (_suspended(""), "user suspended"),
        (_suspended(AdapterRow.name), "adapter suspended"),
    )


def retained() -> ColumnElement[bool]:
    """SQL of "retired, but its files are kept and nobody suspended it": an engine that serves it may go on."""
    kept = (VersionRow.state == State.RETIRED) & VersionRow.removed_at.is_(None)
    return kept & ~_suspended("", AdapterRow.name)


def _suspended(*adapters: Any) -> ColumnElement[bool]:
    return (
        exists()
        .where(
            SuspensionRow.tenant == AdapterRow.tenant,
            SuspensionRow.user_id == AdapterRow.user_id,
            or_(*(SuspensionRow.adapter == each for each in adapters)),  # IN would be written anew for every call
        )
        .correlate(AdapterRow)
    )


def subject_of(owner: Owner) -> str:
    """Return how the audit trail names an owner: it outlives an erasure, so it must not hold the user's name."""
    return f"owner:{sha256_json([owner.tenant, owner.user])[:32]}"


class RegistryRepository:
    """Bases, adapters, versions and the audit trail, within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def now(self) -> datetime:
        """Return the time, by the clock of the database: the one that all hosts share."""
        return (await self._session.execute(select(func.now()))).scalar_one()

    async def get_base(self, base_id: str) -> RegisteredBase | None:
        """Return the base model registered under this id."""
        row = await self._session.get(BaseModelRow, base_id)
        return RegisteredBase.model_validate(row.identity) if row else None

    async def ensure_adapter(self, owner: Owner, name: str) -> int:
        """Return the adapter's number, creating the adapter if it is new."""
        values = {"tenant": owner.tenant, "user_id": owner.user, "name": name}
        await self._session.execute(insert(AdapterRow).values(values).on_conflict_do_nothing())
        found = await self.get_adapter(owner, name)
        if found is None:
            raise AssertionError("adapters are never deleted")
        return found

    async def get_adapter(self, owner: Owner, name: str) -> int | None:
        """Return the adapter's number."""
        key = tuple_(AdapterRow.tenant, AdapterRow.user_id, AdapterRow.name)
        return await self._session.scalar(select(AdapterRow.id).where(key == (owner.tenant, owner.user, name)))

    async def get_version(self, version_id: str) -> VersionRow | None:
        """Return a version, whatever its state."""
        return await self._session.get(VersionRow, version_id)

    async def lock_version(self, version_id: str) -> VersionRow | None:
        """Return a version that nobody can change until this transaction ends."""
        return await self._session.get(VersionRow, version_id, with_for_update=True, populate_existing=True)

    async def transition(
        self,
        version_id: str,
        state: State,
        *,
        was: Sequence[State],
        actor: str,
        why: str | None = None,
        action: str | None = None,
        **values: Any,
    ) -> bool:
        """Move a version from one of the states `was` and write it into the audit trail, in one statement.

        Args:
            version_id: the version.
            state: its new state.
            was: the states from which it may come.
            actor: who asks.
            why: the reason given.
            action: what the audit trail calls it; the new state when omitted.
            values: further columns to set, as ``reason=`` or ``ready_at=func.now()``.

        Returns:
            Whether it was in one of those states.
        """
        old = (
            select(VersionRow.version_id, VersionRow.adapter_id, VersionRow.state)
            .where(VersionRow.version_id == version_id, VersionRow.state.in_(was))
            .with_for_update()
            .cte("old")
        )
        changed = (
            update(VersionRow)
            .where(VersionRow.version_id == old.c.version_id)
            .values(state=state, **values)
            .returning(old.c.version_id, old.c.adapter_id, old.c.state)
            .cte("changed")
        )
        entry = insert(AuditRow).from_select(
            ["version_id", "adapter_id", "from", "to", "actor", "action", "why"],
            select(
                changed.c.version_id,
                changed.c.adapter_id,
                changed.c.state,
                literal(str(state)),
                literal(actor),
                literal(action or str(state)),
                literal(why, Text()),
            ),
        )
        return (await self._session.scalar(entry.returning(AuditRow.id))) is not None

    async def get_policy(self, tenant: str) -> dict[str, Any] | None:
        """Return the tenant's own policy as it is stored."""
        return await self._session.scalar(select(TenantPolicyRow.policy).where(TenantPolicyRow.tenant == tenant))

    async def lock_policy(self, tenant: str) -> dict[str, Any] | None:
        """Return the tenant's own policy, which nobody can change until this transaction ends."""
        statement = select(TenantPolicyRow.policy).where(TenantPolicyRow.tenant == tenant).with_for_update()
        return await self._session.scalar(statement)

    async def put_policy(self, tenant: str, policy: dict[str, Any]) -> None:
        """Store the tenant's policy in place of any other."""
        values = {"policy": policy, "changed_at": func.now()}
        statement = insert(TenantPolicyRow).values(tenant=tenant, **values)
        await self._session.execute(statement.on_conflict_do_update(index_elements=["tenant"], set_=values))

    async def count_versions(self) -> dict[str, float]:
        """Return versions by state: counted while there are few, else as PostgreSQL's statistics have them."""
        rows = await self._session.scalar(_VERSIONS_ESTIMATED)
        if rows is not None and rows > _COUNTED_BELOW:
            found = (await self._session.execute(_STATES_ESTIMATED)).one_or_none()
            return {} if found is None else {state: share * rows for state, share in zip(*found, strict=True)}
        counted = select(VersionRow.state, func.count()).group_by(VersionRow.state)
        return {state: float(count) for state, count in await self._session.execute(counted)}

    async def get_alias(self, adapter_id: int, name: str) -> str | None:
        """Return the version id that the alias names."""
        return await self._session.scalar(
            select(AliasRow.version_id).where(AliasRow.adapter_id == adapter_id, AliasRow.name == name)
        )

    def record(
        self,
        actor: str,
        action: str,
        *,
        adapter_id: int | None = None,
        version_id: str | None = None,
        before: str | None = None,
        after: str | None = None,
        why: str | None = None,
        tenant: str | None = None,
        subject: str | None = None,
    ) -> None:
        """Add one line to the audit trail; `subject` names an owner as `subject_of` does."""
        row = AuditRow(
            actor=actor,
            action=action,
            adapter_id=adapter_id,
            version_id=version_id,
            before=before,
            after=after,
            why=why,
            tenant=tenant,
            subject=subject,
        )
        self._session.add(row)
