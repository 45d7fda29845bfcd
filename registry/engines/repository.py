"""SQL of the engine directory: who is there, who holds what, what must not be served."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Any

from sqlalchemy import Integer, Text, and_, bindparam, case, column, delete, exists, func, literal, or_, select, update
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from kit.canonical import sha256_bytes
from registry.engines.schemas import MAX_WITHHELD, EngineSummary, Holder, Presence, Registration, Tier, Withheld
from registry.lifecycle.schemas import PREVIOUS
from registry.manifest import LIVE, BaseIdentity
from registry.models import AdapterRow, AliasRow, BaseModelRow, EngineHoldingRow, EngineRow, State, VersionRow
from registry.repository import RegistryRepository, obstacle, retained

_LEFT_KEPT = timedelta(days=1)
_PROOF = "proof_sha256"  # beside an engine's facts, and shown to nobody
_DELETED = ("erased", "removed")


class EngineRepository(RegistryRepository):
    """What the engine directory reads and writes, within one transaction.

    An engine that was not seen for `lease_seconds` has lapsed: it has stopped serving adapters by itself.
    """

    def __init__(self, session: AsyncSession, *, lease_seconds: float) -> None:
        super().__init__(session)
        alive = EngineRow.last_seen_at > func.now() - timedelta(seconds=lease_seconds)
        self._state = case((EngineRow.left_at.is_not(None), "left"), (alive, "alive"), else_="lapsed")

    async def put_engine(self, engine_id: str, registration: Registration) -> bool:
        """Store an engine that has started, in place of what its id was before; False = a living one keeps it.

        A living engine's place is taken by itself only, or by who shows the proof that it showed.
        """
        proof = {} if registration.proof is None else {_PROOF: sha256_bytes(registration.proof.encode())}
        digests = {f"base_{name}": digest for name, digest in registration.base.digests().items()}
        values: dict[str, Any] = {
            "base_id": None,
            "address": registration.address,
            "facts": {
                **{name: fact for name, fact in registration.facts.items() if name != _PROOF},
                **digests,
                **proof,
            },
            "incarnation": registration.incarnation,
            "holdings_digest": None,
            "registered_at": func.clock_timestamp(),
            "last_seen_at": func.clock_timestamp(),
            "left_at": None,
        }
        statement = insert(EngineRow).values(id=engine_id, **values)
        free = [self._state != "alive", EngineRow.incarnation == registration.incarnation]
        free += [EngineRow.facts[_PROOF].as_string() == digest for digest in proof.values()]
        upsert = statement.on_conflict_do_update(index_elements=["id"], set_=values, where=or_(*free))
        return await self._session.scalar(upsert.returning(EngineRow.id)) is not None

    async def find_base(self, presence: Presence) -> dict[str, str] | None:
        """Return the digests of the base that a living engine serves, by field; None for anybody else.

        Nobody else changes what it holds until this transaction ends.
        """
        statement = select(EngineRow.facts).where(
            EngineRow.id == presence.engine_id, EngineRow.incarnation == presence.incarnation, self._state == "alive"
        )
        facts = await self._session.scalar(statement.with_for_update(key_share=True))
        if facts is None:
            return None
        return {name: facts.get(f"base_{name}") for name in BaseIdentity.model_fields if name.endswith("_sha256")}

    async def note_grant(self, engine_id: str, version_id: str) -> None:
        """Note that an engine gets a version, until it says itself what it holds; it is asked for that."""
        held = insert(EngineHoldingRow).values(engine_id=engine_id, version_id=version_id, tier=Tier.DISK)
        added = held.on_conflict_do_nothing().returning(EngineHoldingRow.version_id)
        if await self._session.scalar(added) is not None:
            await self._session.execute(update(EngineRow).where(EngineRow.id == engine_id).values(holdings_digest=None))

    async def match_base(self, engine_id: str) -> None:
        """Note under which id the engine's base model is registered, once somebody has registered it."""
        same = [
            BaseModelRow.identity[name].as_string() == EngineRow.facts[f"base_{name}"].as_string()
            for name in BaseIdentity.model_fields
            if name.endswith("_sha256")
        ]
        found = select(BaseModelRow.id).where(*same).order_by(BaseModelRow.id).limit(1).scalar_subquery()
        unmatched = update(EngineRow).where(EngineRow.id == engine_id, EngineRow.base_id.is_(None))
        await self._session.execute(unmatched.values(base_id=found.correlate(EngineRow)))

    async def touch(self, engine_id: str, incarnation: str) -> str | None:
        """Note a sign of life; return the digest of the stored holdings ("" = none), or None for somebody else's."""
        statement = (
            update(EngineRow)
            .where(EngineRow.id == engine_id, EngineRow.incarnation == incarnation, EngineRow.left_at.is_(None))
            .values(last_seen_at=func.clock_timestamp())
            .returning(func.coalesce(EngineRow.holdings_digest, ""))
        )
        return await self._session.scalar(statement)

    async def get_state(self, engine_id: str) -> str | None:
        """Return ``alive``, ``lapsed`` or ``left``."""
        return await self._session.scalar(select(self._state).where(EngineRow.id == engine_id))

    async def put_holdings(self, engine_id: str, tiers: dict[str, Tier], *, digest: str) -> None:
        """Replace what an engine holds; rows that stay as they are are not written."""
        ids, names = list(tiers), [str(tier) for tier in tiers.values()]
        mine = EngineHoldingRow.engine_id == engine_id
        gone = EngineHoldingRow.version_id != func.all(bindparam("ids", ids, ARRAY(Text)))
        await self._session.execute(delete(EngineHoldingRow).where(mine, gone))
        both = func.unnest(bindparam("ids", ids, ARRAY(Text)), bindparam("tiers", names, ARRAY(Text)))
        held = both.table_valued(column("version_id", Text), column("tier", Text), name="held").render_derived()
        statement = insert(EngineHoldingRow).from_select(
            ["engine_id", "version_id", "tier"], select(literal(engine_id), held.c.version_id, held.c.tier)
        )
        new = statement.excluded
        await self._session.execute(
            statement.on_conflict_do_update(
                index_elements=["engine_id", "version_id"],
                set_={"tier": new.tier},
                where=EngineHoldingRow.tier != new.tier,
            )
        )
        await self._session.execute(update(EngineRow).where(EngineRow.id == engine_id).values(holdings_digest=digest))

    async def put_leases(self, engine_id: str, leases: dict[str, int]) -> None:
        """Replace how many requests lean on each version that the engine holds."""
        ids, counts = list(leases), list(leases.values())
        both = func.unnest(bindparam("ids", ids, ARRAY(Text)), bindparam("counts", counts, ARRAY(Integer)))
        given = both.table_valued(column("version_id", Text), column("leases", Integer), name="given").render_derived()
        count = func.coalesce(
            select(given.c.leases).where(given.c.version_id == EngineHoldingRow.version_id).scalar_subquery(), 0
        )
        touched = or_(
            EngineHoldingRow.leases > 0,
            EngineHoldingRow.version_id == func.any(bindparam("held", ids, ARRAY(Text))),
        )
        await self._session.execute(
            update(EngineHoldingRow)
            .where(EngineHoldingRow.engine_id == engine_id, touched, EngineHoldingRow.leases != count)
            .values(leases=count)
        )

    async def withheld(self, engine_id: str) -> tuple[list[Withheld], bool]:
        """Return which of the versions that the engine holds must not be served, and why; and if that is all.

        At most `MAX_WITHHELD`: first what may be in memory, then what must be deleted. Both become fewer as the engine
        obeys, so it hears of the rest next time. What is on the disk only is asked for before it is served: the rest of
        that is left out, and so is all of it that the registry never knew, which an engine could invent.
        """
        removed = and_(VersionRow.state == State.RETIRED, VersionRow.removed_at.is_not(None))
        reason = case(
            (VersionRow.version_id.is_(None), "unknown"),
            (VersionRow.state == State.ERASED, "erased"),
            (removed, "removed"),
            (VersionRow.state.in_([State.PENDING, State.UPLOADED, State.REJECTED]), "unfinished"),
            else_="suspended",
        )
        in_memory, deleted = EngineHoldingRow.tier != Tier.DISK, reason.in_(_DELETED)
        statement = (
            select(EngineHoldingRow.version_id, reason, in_memory)
            .outerjoin(VersionRow, VersionRow.version_id == EngineHoldingRow.version_id)
            .outerjoin(AdapterRow, AdapterRow.id == VersionRow.adapter_id)
            .where(EngineHoldingRow.engine_id == engine_id)
            .where(
                or_(
                    and_(VersionRow.version_id.is_(None), in_memory),
                    and_(VersionRow.version_id.is_not(None), obstacle().is_not(None), ~retained()),
                )
            )
            .order_by(in_memory.desc(), deleted.desc(), EngineHoldingRow.version_id)
            .limit(MAX_WITHHELD + 1)
        )
        rows = (await self._session.execute(statement)).all()
        found = [Withheld(version_id=row[0], reason=row[1], delete=row[1] in _DELETED) for row in rows[:MAX_WITHHELD]]
        return found, not any(row[2] or row[1] in _DELETED for row in rows[MAX_WITHHELD:])

    async def superseded(self, engine_id: str) -> list[str]:
        """Return which versions the engine holds in memory though another one of their adapter is live now.

        What any alias but `previous` still names is not among them.
        """
        live, named = aliased(AliasRow), aliased(AliasRow)
        statement = (
            select(EngineHoldingRow.version_id)
            .join(VersionRow, VersionRow.version_id == EngineHoldingRow.version_id)
            .join(live, and_(live.adapter_id == VersionRow.adapter_id, live.name == LIVE))
            .where(EngineHoldingRow.engine_id == engine_id, EngineHoldingRow.tier != Tier.DISK)
            .where(~exists().where(named.version_id == VersionRow.version_id, named.name != PREVIOUS))
            .order_by(EngineHoldingRow.version_id)
            .limit(MAX_WITHHELD)
        )
        return list(await self._session.scalars(statement))

    async def leave(self, engine_id: str, incarnation: str) -> bool:
        """Note that an engine has stopped; it holds nothing that counts. False = it is not the one registered."""
        statement = (
            update(EngineRow)
            .where(EngineRow.id == engine_id, EngineRow.incarnation == incarnation, EngineRow.left_at.is_(None))
            .values(left_at=func.now(), holdings_digest=None)
            .returning(EngineRow.id)
        )
        if await self._session.scalar(statement) is None:
            return False
        await self._session.execute(delete(EngineHoldingRow).where(EngineHoldingRow.engine_id == engine_id))
        return True

    async def forget(self, engine_id: str) -> bool:
        """Remove an engine that is not alive, with what it said it holds; say whether it was removed."""
        statement = delete(EngineRow).where(EngineRow.id == engine_id, self._state != "alive").returning(EngineRow.id)
        return await self._session.scalar(statement) is not None

    async def forget_left(self) -> None:
        """Remove engines that left a day ago and more; one that comes back registers anew."""
        await self._session.execute(delete(EngineRow).where(EngineRow.left_at < func.now() - _LEFT_KEPT))

    async def list_engines(self, *, after: str, limit: int, engine_id: str | None = None) -> list[EngineSummary]:
        """Return engines whose ids follow `after`, by id; or the one named."""
        counts = [func.count().filter(EngineHoldingRow.tier == tier.value).label(tier.value) for tier in Tier]
        held = (
            select(*counts, func.coalesce(func.sum(EngineHoldingRow.leases), 0).label("leases"))
            .where(EngineHoldingRow.engine_id == EngineRow.id)
            .lateral()
        )
        silent = func.extract("epoch", func.now() - EngineRow.last_seen_at)
        which = EngineRow.id > after if engine_id is None else EngineRow.id == engine_id
        statement = select(EngineRow, self._state, silent, held).where(which).order_by(EngineRow.id).limit(limit)
        return [
            EngineSummary(
                id=row.id,
                state=state,
                base_id=row.base_id,
                address=row.address,
                facts={name: fact for name, fact in row.facts.items() if name != _PROOF},
                registered_at=row.registered_at,
                last_seen_at=row.last_seen_at,
                left_at=row.left_at,
                silent_seconds=max(0.0, float(silent_seconds)),
                held={Tier.DISK: disk, Tier.HOST: host, Tier.DEVICE: device},
                leases=leases,
            )
            for row, state, silent_seconds, disk, host, device, leases in await self._session.execute(statement)
        ]

    async def holders(self, version_id: str) -> list[Holder]:
        """Return who said that it holds a version, lapsed engines included: they may still have its files."""
        statement = (
            select(EngineRow.id, self._state, EngineHoldingRow.tier, EngineHoldingRow.leases, EngineRow.last_seen_at)
            .join(EngineRow, EngineRow.id == EngineHoldingRow.engine_id)
            .where(EngineHoldingRow.version_id == version_id)
            .order_by(EngineRow.id)
        )
        return [
            Holder(engine_id=engine_id, state=state, tier=tier, leases=leases, last_seen_at=seen)
            for engine_id, state, tier, leases, seen in await self._session.execute(statement)
        ]

    async def leases(self, version_ids: Collection[str]) -> dict[str, int]:
        """Return how many requests run on each of these versions now; those without any are left out.

        As of every engine's last heartbeat. A lapsed engine counts no more: it has stopped serving by itself.
        """
        statement = (
            select(EngineHoldingRow.version_id, func.sum(EngineHoldingRow.leases))
            .join(EngineRow, EngineRow.id == EngineHoldingRow.engine_id)
            .where(EngineHoldingRow.version_id.in_(version_ids), EngineHoldingRow.leases > 0, self._state == "alive")
            .group_by(EngineHoldingRow.version_id)
        )
        return {row[0]: row[1] for row in await self._session.execute(statement)}

    async def count_engines(self) -> dict[str, int]:
        """Return how many engines are alive, lapsed and gone."""
        counted = select(self._state, func.count()).group_by(self._state)
        return {row[0]: row[1] for row in await self._session.execute(counted)}
