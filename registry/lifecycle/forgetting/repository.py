"""SQL of what is left of an owner, and of taking their name out of it."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Select, and_, case, delete, func, or_, select, update

from registry.lifecycle.repository import LifecycleRepository, last_signed
from registry.lifecycle.schemas import RemainsHolder
from registry.manifest import Owner
from registry.models import (
    AdapterRow,
    AliasMoveRow,
    DataKeyRow,
    EngineHoldingRow,
    EngineRow,
    IdempotentRequestRow,
    State,
    SuspensionRow,
    VersionRow,
)
from registry.repository import subject_of


class ForgettingRepository(LifecycleRepository):
    """What is read and changed when nothing of an owner is to be left, within one transaction."""

    async def keep_out(self, owner: Owner) -> None:
        """Let nobody make an adapter, a version or a key of this owner until this transaction ends."""
        await self._session.execute(select(func.pg_advisory_xact_lock(func.erasure_lock(owner.tenant, owner.user))))

    async def remains(self, owner: Owner) -> dict[str, int]:
        """Count adapters, versions, those erased, those whose bytes may be left, keys that open, and suspensions."""
        erased = VersionRow.state == State.ERASED
        mine = and_(AdapterRow.tenant == owner.tenant, AdapterRow.user_id == owner.user)
        versions = (
            select(
                func.count(AdapterRow.id.distinct()),
                func.count(VersionRow.version_id),
                func.count().filter(erased),
                func.count().filter(erased, VersionRow.removed_at.is_(None)),
            )
            .select_from(AdapterRow)
            .outerjoin(VersionRow, VersionRow.adapter_id == AdapterRow.id)
            .where(mine)
        )
        found = (await self._session.execute(versions)).one()
        keys = select(func.count()).where(
            DataKeyRow.tenant == owner.tenant, DataKeyRow.user_id == owner.user, DataKeyRow.destroyed_at.is_(None)
        )
        return {
            "adapters": found[0],
            "versions": found[1],
            "erased": found[2],
            "unremoved": found[3],
            "data_keys": await self._session.scalar(keys) or 0,
        }

    async def version_ids(self, owner: Owner) -> list[str]:
        """Return the ids of all of the owner's versions, tombstones included."""
        return list(await self._session.scalars(_versions(owner).order_by(VersionRow.version_id)))

    async def holders(self, owner: Owner, *, lease_seconds: float) -> list[RemainsHolder]:
        """Return which engines said that they hold any version of the owner; lapsed ones may still have its files."""
        alive = EngineRow.last_seen_at > func.now() - timedelta(seconds=lease_seconds)
        state = case((EngineRow.left_at.is_not(None), "left"), (alive, "alive"), else_="lapsed")
        statement = (
            select(EngineRow.id, state, EngineRow.last_seen_at, func.array_agg(EngineHoldingRow.version_id))
            .join(EngineHoldingRow, EngineHoldingRow.engine_id == EngineRow.id)
            .where(EngineHoldingRow.version_id.in_(_versions(owner)))
            .group_by(EngineRow.id)
            .order_by(EngineRow.id)
        )
        return [
            RemainsHolder(engine_id=row[0], state=row[1], last_seen_at=row[2], version_ids=tuple(sorted(row[3])))
            for row in await self._session.execute(statement)
        ]

    async def settled_at(self, owner: Owner, *, settle_seconds: float) -> datetime | None:
        """Return when the last upload URL of what is not removed yet has lapsed; None when all is removed."""
        statement = select(func.max(last_signed()) + timedelta(seconds=settle_seconds)).where(
            VersionRow.version_id.in_(_versions(owner)),
            VersionRow.state == State.ERASED,
            VersionRow.removed_at.is_(None),
        )
        return await self._session.scalar(statement)

    async def adapter_ids(self, owner: Owner) -> list[int]:
        """Return the numbers of the owner's adapters; nobody else steers them until this transaction ends."""
        return [row.id for row in await self.lock_adapters_of(owner)]

    async def rename(self, adapter_id: int, name: str) -> None:
        """Let an adapter belong to nobody that has a name."""
        await self._session.execute(
            update(AdapterRow)
            .where(AdapterRow.id == adapter_id)
            .values(user_id=name, name="erased")
            .execution_options(synchronize_session=False)
        )
        await self._session.execute(
            update(AliasMoveRow)
            .where(AliasMoveRow.adapter_id == adapter_id)
            .values(why=None)
            .execution_options(synchronize_session=False)
        )

    async def forget(self, owner: Owner, *, pseudonym: str) -> None:
        """Take the owner's name out of destroyed keys, suspensions and kept answers."""
        await self._session.execute(
            update(DataKeyRow)
            .where(DataKeyRow.tenant == owner.tenant, DataKeyRow.user_id == owner.user)
            .values(user_id=pseudonym)
            .execution_options(synchronize_session=False)
        )
        await self._session.execute(
            delete(SuspensionRow)
            .where(SuspensionRow.tenant == owner.tenant, SuspensionRow.user_id == owner.user)
            .execution_options(synchronize_session=False)
        )
        # Rows of the release before do not say whom they are about; none is older than a day.
        kept = IdempotentRequestRow
        await self._session.execute(
            delete(kept)
            .where(or_(kept.subject == subject_of(owner), kept.subject.is_(None)))
            .execution_options(synchronize_session=False)
        )


def _versions(owner: Owner) -> Select[str]:
    mine = select(AdapterRow.id).where(AdapterRow.tenant == owner.tenant, AdapterRow.user_id == owner.user)
    return select(VersionRow.version_id).where(VersionRow.adapter_id.in_(mine))
