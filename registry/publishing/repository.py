"""SQL of publishing: base models, claiming a number for a content, what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Float, Text, TextClause, bindparam, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from registry.artifact.findings import ValidationReport
from registry.manifest import BaseShape, Manifest, Owner, RegisteredBase
from registry.models import (
    BEGIN,
    BEGIN_AGAIN,
    AdapterRow,
    BaseModelRow,
    DataKeyRow,
    State,
    VersionRow,
    VersionTranscriptRow,
)
from registry.repository import RegistryRepository, obstacle
from registry.sealing.repository import WrappedKey

_UNFINISHED = (State.PENDING, State.UPLOADED)
_COUNTED = (State.PENDING, State.UPLOADED, State.READY, State.SUSPENDED)


# These three are what every publish runs. They are written out, for building them anew took longer than running them.
_LOOK = text(
    """
    select b.identity as base, p.policy, a.id as adapter_id, k.id as key_id, k.master_key_id, k.wrapped, now() as now,
        coalesce((select max(v.number) from adapter_version v where v.adapter_id = a.id), 0) + 1 as number
    from (values (1)) one
    left join base_model b on b.id = :base
    left join tenant_policy p on p.tenant = :tenant
    left join adapter a on a.tenant = :tenant and a.user_id = :user and a.name = :adapter
    left join data_key k on k.tenant = :tenant and k.user_id = :user and k.destroyed_at is null
    """
).columns(base=JSON, policy=JSON)
_ADD_ADAPTER = text(
    "insert into adapter (tenant, user_id, name) values (:tenant, :user, :adapter) on conflict do nothing returning id"
)
_ADD = text(
    """
    with added as (
        insert into adapter_version (version_id, adapter_id, number, state, base_id, content_digest, manifest,
            manifest_digest, size_bytes, created_at, data_key_id, validation)
        values (:version_id, :adapter_id, :number, 'pending', :base, :content_digest, :manifest,
            :manifest_digest, :size_bytes, :created_at, :data_key_id, :pending)
        on conflict do nothing returning adapter_id, version_id
    )
    insert into audit (actor, action, adapter_id, version_id) select :actor, 'begin', adapter_id, version_id from added
    returning id
    """
).bindparams(bindparam("manifest", type_=JSON), bindparam("pending", type_=JSON))

_SHARE_KEY = text("select id from data_key where id = :id and destroyed_at is null for share")
_SHARE_UNFINISHED = text(
    "select version_id from adapter_version where version_id = :version_id and state in ('pending', 'uploaded')"
    " for share"
)
_BEGIN_AGAIN = text(
    f"""
    insert into audit (actor, action, adapter_id, version_id)
    select :actor, '{BEGIN_AGAIN}', v.adapter_id, v.version_id from adapter_version v
    where v.version_id = :version_id and not exists (
        select from audit a where a.version_id = v.version_id and a.action in ('{BEGIN}', '{BEGIN_AGAIN}')
            and a.at > now() - make_interval(secs => :within)
    )
    """
).bindparams(bindparam("within", type_=Float))


def _step(state: State, was: str, columns: str) -> TextClause:
    """Return a statement that takes a version from one state to the next and writes it into the audit trail."""
    return text(
        f"""
        with old as (
            select version_id, adapter_id, state from adapter_version
            where version_id = :version_id and state in ({was}) for update
        ), changed as (
            update adapter_version v set state = '{state}'{columns} from old where v.version_id = old.version_id
            returning old.version_id, old.adapter_id, old.state
        )
        insert into audit (version_id, adapter_id, "from", "to", actor, action, why)
        select version_id, adapter_id, state, '{state}', :actor, '{state}', :why from changed returning id
        """
    ).bindparams(bindparam("why", type_=Text))


_UPLOADED = _step(State.UPLOADED, "'pending'", "")
_READY = _step(
    State.READY,
    "'uploaded'",
    ", ready_at = now(), sealed_bytes = :sealed_bytes, validation = :validation, signature = :signature",
).bindparams(
    bindparam("validation", type_=JSON),
    bindparam("signature", type_=JSON(none_as_null=True)),
    bindparam("sealed_bytes", type_=BigInteger),
)
_REJECTED = _step(
    State.REJECTED,
    "'pending', 'uploaded'",
    ", reason = :reason, reason_field = :reason_field, validation = :validation",
).bindparams(bindparam("validation", type_=JSON), bindparam("reason_field", type_=Text))
_PUBLISH = (
    select(VersionRow, BaseModelRow.identity, DataKeyRow.id, DataKeyRow.master_key_id, DataKeyRow.wrapped)
    .join(BaseModelRow, BaseModelRow.id == VersionRow.base_id)
    .outerjoin(DataKeyRow, DataKeyRow.id == VersionRow.data_key_id)
    .where(VersionRow.version_id == bindparam("version_id"))
)
_HELD = (
    select(
        VersionRow,
        DataKeyRow.id,
        DataKeyRow.master_key_id,
        DataKeyRow.wrapped,
        obstacle().label("obstacle"),
        func.now(),
    )
    .join(AdapterRow, AdapterRow.id == VersionRow.adapter_id)
    .outerjoin(DataKeyRow, DataKeyRow.id == VersionRow.data_key_id)
    .where(VersionRow.version_id == bindparam("version_id"))
)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What there is when a publish begins; `key` None = the owner has none yet, `adapter_id` None = it is new."""

    base: RegisteredBase | None
    policy: dict[str, Any] | None
    adapter_id: int | None
    key: WrappedKey | None
    number: int
    now: datetime


@dataclass(frozen=True, kw_only=True)
class Claimed:
    """A version that is being published, its base's sizes, and its owner's key; None = the key was destroyed."""

    row: VersionRow
    shape: BaseShape | None
    key: WrappedKey | None


@dataclass(frozen=True, kw_only=True)
class Held:
    """A version as a grant needs it; `obstacle` says why it may not be served, None = it may."""

    row: VersionRow
    key: WrappedKey | None
    obstacle: str | None
    now: datetime


class PublishingRepository(RegistryRepository):
    """What a publish reads and writes, within one transaction."""

    async def add_base(self, base: RegisteredBase) -> bool:
        """Store a base model unless its id is taken; say whether it was new."""
        statement = (
            insert(BaseModelRow)
            .values(id=base.id, identity=base.model_dump(mode="json"))
            .on_conflict_do_nothing()
            .returning(BaseModelRow.id)
        )
        return (await self._session.scalar(statement)) is not None

    async def lock_base(self, base_id: str) -> RegisteredBase:
        """Return a base model that is known to exist, which nobody can change until this transaction ends."""
        row = await self._session.get_one(BaseModelRow, base_id, with_for_update=True, populate_existing=True)
        return RegisteredBase.model_validate(row.identity)

    async def replace_base(self, base: RegisteredBase) -> None:
        """Store what more is known of a base model."""
        statement = update(BaseModelRow).where(BaseModelRow.id == base.id)
        await self._session.execute(statement.values(identity=base.model_dump(mode="json")))

    async def list_bases(self) -> list[RegisteredBase]:
        """Return every base model, by id."""
        rows = await self._session.scalars(select(BaseModelRow).order_by(BaseModelRow.id))
        return [RegisteredBase.model_validate(row.identity) for row in rows]

    async def find_content(self, adapter_id: int, content_digest: str) -> VersionRow | None:
        """Return the version that has this content and may still be served."""
        return await self._session.scalar(
            select(VersionRow).where(
                VersionRow.adapter_id == adapter_id,
                VersionRow.content_digest == content_digest,
                VersionRow.state.in_(_COUNTED),
            )
        )

    async def get_numbered(self, adapter_id: int, number: int) -> VersionRow | None:
        """Return the adapter's version of this number."""
        return await self._session.scalar(
            select(VersionRow).where(VersionRow.adapter_id == adapter_id, VersionRow.number == number)
        )

    async def look(self, owner: Owner, adapter: str, *, base_id: str) -> Standing:
        """Return all that a publish has to know before it claims a version, in one statement."""
        values = {"tenant": owner.tenant, "user": owner.user, "adapter": adapter, "base": base_id}
        found = (await self._session.execute(_LOOK, values)).one()
        return Standing(
            base=RegisteredBase.model_validate(found.base) if found.base else None,
            policy=found.policy,
            adapter_id=found.adapter_id,
            key=_wrapped(found.key_id, found.master_key_id, found.wrapped),
            number=found.number,
            now=found.now,
        )

    async def share_key(self, data_key_id: str) -> bool:
        """Keep a data key from being destroyed until this transaction ends; False = it was destroyed."""
        return (await self._session.scalar(_SHARE_KEY, {"id": data_key_id})) is not None

    async def begin_again(self, version_id: str, *, within_seconds: float, actor: str) -> bool:
        """Remember that somebody goes on with a publish, once in so many seconds; False = it ended meanwhile."""
        if await self._session.scalar(_SHARE_UNFINISHED, {"version_id": version_id}) is None:
            return False
        values = {"version_id": version_id, "within": within_seconds, "actor": actor}
        await self._session.execute(_BEGIN_AGAIN, values)
        return True

    async def add_adapter(self, owner: Owner, name: str) -> int | None:
        """Add an adapter and return its number; None when it is there already."""
        values = {"tenant": owner.tenant, "user": owner.user, "adapter": name}
        added: int | None = await self._session.scalar(_ADD_ADAPTER, values)
        return added

    async def next_number(self, adapter_id: int) -> tuple[int, datetime]:
        """Return one more than the largest number in use, and the time; another transaction may take it first."""
        largest, now = (
            await self._session.execute(
                select(func.max(VersionRow.number), func.now()).where(VersionRow.adapter_id == adapter_id)
            )
        ).one()
        return (largest or 0) + 1, now

    async def add_version(
        self, adapter_id: int, manifest: Manifest, *, data_key_id: str, pending: dict[str, Any], actor: str
    ) -> bool:
        """Store a pending version, and say so in the audit trail; False = its number or its content was taken.

        `pending` is what completing needs beside the manifest; it gives way to the validation report.
        """
        values = {
            "version_id": manifest.version_id,
            "adapter_id": adapter_id,
            "number": manifest.version,
            "base": manifest.base.id,
            "content_digest": manifest.content_digest,
            "manifest": manifest.model_dump(mode="json"),
            "manifest_digest": manifest.digest,
            "size_bytes": sum(file.size_bytes for file in manifest.files),
            "created_at": manifest.created_at,
            "data_key_id": data_key_id,
            "pending": pending,
            "actor": actor,
        }
        return (await self._session.scalar(_ADD, values)) is not None

    async def get_publish(self, version_id: str) -> Claimed | None:
        """Return a version, whatever its state, with what completing it needs."""
        found = (await self._session.execute(_PUBLISH, {"version_id": version_id})).one_or_none()
        if found is None:
            return None
        row, identity, *key = found
        return Claimed(row=row, shape=RegisteredBase.model_validate(identity).shape, key=_wrapped(*key))

    async def mark_uploaded(self, version_id: str, *, actor: str) -> None:
        """Remember that a pending version's bytes have arrived."""
        await self._session.execute(_UPLOADED, {"version_id": version_id, "actor": actor, "why": None})

    async def reject(
        self, manifest: Manifest, report: ValidationReport, *, reason: str, field: str | None, actor: str
    ) -> bool:
        """Reject an unfinished version for good; say whether it was unfinished.

        The audit trail outlives an erasure, so it gets the finding's code and not the reason, which may quote content.
        """
        values = {
            "version_id": manifest.version_id,
            "actor": actor,
            "why": report.errors[0].code,
            "reason": reason,
            "reason_field": field,
            "validation": report.model_dump(mode="json"),
        }
        return (await self._session.scalar(_REJECTED, values)) is not None

    async def make_ready(
        self,
        manifest: Manifest,
        report: ValidationReport,
        *,
        sealed_bytes: int,
        signature: dict[str, Any] | None,
        actor: str,
    ) -> bool:
        """Make a version ready and remember where it came from; say whether it was uploaded and nothing else."""
        values = {
            "version_id": manifest.version_id,
            "actor": actor,
            "why": None,
            "sealed_bytes": sealed_bytes,
            "validation": report.model_dump(mode="json"),
            "signature": signature,
        }
        if await self._session.scalar(_READY, values) is None:
            return False
        await self.add_transcripts(manifest)
        return True

    async def set_pending(self, version_id: str, pending: dict[str, Any]) -> None:
        """Replace what completing an unfinished version needs."""
        await self._session.execute(
            update(VersionRow)
            .where(VersionRow.version_id == version_id, VersionRow.state.in_(_UNFINISHED))
            .values(validation=pending)
        )

    async def get_held(self, version_id: str) -> Held | None:
        """Return a version and whether it may be served now, in one statement."""
        found = (await self._session.execute(_HELD, {"version_id": version_id})).one_or_none()
        if found is None:
            return None
        row, key_id, master_key_id, wrapped, why, now = found
        return Held(row=row, key=_wrapped(key_id, master_key_id, wrapped), obstacle=why, now=now)

    async def count_adapters(self, tenant: str, *, at_most: int) -> int:
        """Return how many adapters a tenant has, counting no further than `at_most`; others wait until the end."""
        await self._session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"adapters {tenant}", 0))))
        few = select(AdapterRow.id).where(AdapterRow.tenant == tenant).limit(at_most).subquery()
        return await self._session.scalar(select(func.count()).select_from(few)) or 0

    async def count_room(self, adapter_id: int) -> int:
        """Return how many versions of an adapter count against its limit; others wait until this transaction ends."""
        await self._session.execute(select(AdapterRow.id).where(AdapterRow.id == adapter_id).with_for_update())
        statement = select(func.count()).where(VersionRow.adapter_id == adapter_id, VersionRow.state.in_(_COUNTED))
        return await self._session.scalar(statement) or 0

    async def add_transcripts(self, manifest: Manifest) -> None:
        """Remember which transcripts a version was trained on."""
        rows = [
            {"transcript_id": transcript_id, "version_id": manifest.version_id}
            for transcript_id in sorted(set(manifest.lineage.transcript_ids))
        ]
        if rows:
            await self._session.execute(insert(VersionTranscriptRow).on_conflict_do_nothing(), rows)


def _wrapped(key_id: str | None, master_key_id: str | None, wrapped: bytes | None) -> WrappedKey | None:
    if key_id is None or master_key_id is None or wrapped is None:
        return None
    return WrappedKey(id=key_id, master_key_id=master_key_id, wrapped=wrapped)
