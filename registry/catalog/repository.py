"""SQL of reading: names, listings, lineage. Pages go by key, and every statement stands on an index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Select,
    Text,
    and_,
    bindparam,
    cast,
    collate,
    exists,
    func,
    literal,
    or_,
    select,
    text,
    tuple_,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import aliased

from registry.manifest import LIVE, AdapterRef
from registry.models import (
    AdapterRow,
    AliasRow,
    EvaluationReportRow,
    State,
    SuspensionRow,
    VersionRow,
    VersionTranscriptRow,
)
from registry.repository import RegistryRepository, obstacle

# Names go by code point, as `ix_adapter_names` does, whatever order the database has by default.
_USER: Any = collate(AdapterRow.user_id, "C")
_NAME: Any = collate(AdapterRow.name, "C")
_OWN_LOSS: Final = ("evaluation", "held_out", "own_loss")
Rows = Sequence[Any]
Selected = Select[*tuple[Any, ...]]
_KEY = {"names": (_USER, _NAME), "created": (AdapterRow.created_at, AdapterRow.id)}


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """What one reference leads to; `manifest` is JSON as it is stored, None where nothing is named.

    `obstacle` says why the version may not be served; None = it may.
    """

    version_id: str | None
    number: int | None
    manifest: str | None
    manifest_digest: str | None
    obstacle: str | None


@dataclass(frozen=True, kw_only=True)
class AdapterFilter:
    """Which of a tenant's adapters to list; None = whichever.

    `search` is the beginning of a user's name, or a user, a slash and the beginning of an adapter's name. `base` and
    `state` ask for one version that has both.
    """

    tenant: str
    user: str | None = None
    search: str | None = None
    base: str | None = None
    alias: str | None = None
    state: State | None = None
    suspended: bool | None = None
    created_since: datetime | None = None

    @property
    def order(self) -> str:
        """The order of its pages: by names where names select, else as the adapters were created."""
        return "names" if self.user is not None or self.search is not None else "created"


@dataclass(frozen=True, kw_only=True)
class VersionFilter:
    """Which of a tenant's versions to list; None = whichever."""

    tenant: str
    user: str | None = None
    transcript: str | None = None
    base: str | None = None
    state: State | None = None


class CatalogRepository(RegistryRepository):
    """What the catalog reads, within one session."""

    async def resolve(self, ref: AdapterRef) -> Resolved | None:
        """Return what a reference names, in one statement on unique indexes; None when there is no such adapter."""
        statement = _RESOLVE_ALIAS if ref.version is None else _RESOLVE_NUMBER
        values: dict[str, Any] = {"tenant": ref.owner.tenant, "user_id": ref.owner.user, "adapter": ref.adapter}
        values["selector"] = ref.selector if ref.version is None else ref.version
        return _resolved((await self._session.execute(statement, values)).one_or_none())

    async def resolve_id(self, version_id: str) -> Resolved | None:
        """Return what an opaque version id names; None when there is no such version."""
        return _resolved((await self._session.execute(_RESOLVE_ID, {"version_id": version_id})).one_or_none())

    async def list_adapters(self, wanted: AdapterFilter, *, after: Sequence[Any] | None, limit: int) -> Rows:
        """Return one page of adapters after the key `after`, each with what people ask next about it."""
        key = _KEY[wanted.order]
        page = select(AdapterRow.id, *key).where(*_adapter_conditions(wanted)).order_by(*key).limit(limit)
        if after is not None:
            page = page.where(tuple_(*key) > tuple_(*[literal(value) for value in after]))
        found = page.with_only_columns(AdapterRow.id).subquery()
        statement = _summaries().where(AdapterRow.id.in_(select(found.c.id))).order_by(*key)
        return (await self._session.execute(statement)).all()

    async def get_summary(self, adapter_id: int) -> Any | None:
        """Return one adapter with what people ask next about it."""
        return (await self._session.execute(_summaries().where(AdapterRow.id == adapter_id))).one_or_none()

    async def count_states(self, adapter_id: int) -> dict[str, int]:
        """Return how many versions of the adapter are in each state that any is in."""
        statement = (
            select(VersionRow.state, func.count())
            .where(VersionRow.adapter_id == adapter_id)
            .group_by(VersionRow.state)
            .order_by(VersionRow.state)
        )
        return {row[0]: row[1] for row in await self._session.execute(statement)}

    async def list_versions(self, adapter_id: int, *, below: int | None, limit: int) -> Rows:
        """Return one page of the adapter's versions numbered below `below`, the newest first, with their aliases."""
        statement = _versions().where(VersionRow.adapter_id == adapter_id)
        if below is not None:
            statement = statement.where(VersionRow.number < below)
        return (await self._session.execute(statement.order_by(VersionRow.number.desc()).limit(limit))).all()

    async def find_versions(self, wanted: VersionFilter, *, after: Sequence[Any] | None, limit: int) -> Rows:
        """Return one page of a tenant's versions, by adapter and number."""
        key = (AdapterRow.id, VersionRow.number)
        statement = _versions().where(*_version_conditions(wanted)).order_by(*key).limit(limit)
        if after is not None:
            statement = statement.where(tuple_(*key) > tuple_(*[literal(value) for value in after]))
        return (await self._session.execute(statement)).all()

    async def get_detail(self, ref: AdapterRef) -> Any | None:
        """Return everything that is known of the version that a reference names, whatever its state."""
        statement = _details().where(
            AdapterRow.tenant == ref.owner.tenant,
            AdapterRow.user_id == ref.owner.user,
            AdapterRow.name == ref.adapter,
        )
        if ref.version is None:
            named = and_(AliasRow.adapter_id == AdapterRow.id, AliasRow.name == ref.selector)
            statement = statement.join(AliasRow, named).where(AliasRow.version_id == VersionRow.version_id)
        else:
            statement = statement.where(VersionRow.number == ref.version)
        return (await self._session.execute(statement)).one_or_none()


def _resolution() -> Selected:
    return select(
        VersionRow.version_id,
        VersionRow.number,
        cast(VersionRow.manifest, Text).label("manifest"),
        VersionRow.manifest_digest,
        obstacle().label("obstacle"),
    )


def _of_adapter(statement: Selected) -> Selected:
    """Look an adapter up by its whole name, which `uq_adapter_owner_name` holds."""
    return statement.where(
        AdapterRow.tenant == bindparam("tenant"),
        AdapterRow.user_id == bindparam("user_id"),
        AdapterRow.name == bindparam("adapter"),
    )


def _resolve_alias() -> Selected:
    """Outer joins: a row without a version says that the adapter is known and the alias is not."""
    named = and_(AliasRow.adapter_id == AdapterRow.id, AliasRow.name == bindparam("selector"))
    joined = (
        _resolution()
        .select_from(AdapterRow)
        .outerjoin(AliasRow, named)
        .outerjoin(VersionRow, VersionRow.version_id == AliasRow.version_id)
    )
    return _of_adapter(joined)


def _resolve_number() -> Selected:
    numbered = and_(VersionRow.adapter_id == AdapterRow.id, VersionRow.number == bindparam("selector"))
    return _of_adapter(_resolution().select_from(AdapterRow).outerjoin(VersionRow, numbered))


def _resolve_id() -> Selected:
    joined = _resolution().join(AdapterRow, AdapterRow.id == VersionRow.adapter_id)
    return joined.where(VersionRow.version_id == bindparam("version_id"))


_RESOLVE_ALIAS, _RESOLVE_NUMBER, _RESOLVE_ID = _resolve_alias(), _resolve_number(), _resolve_id()


def _resolved(row: Any | None) -> Resolved | None:
    if row is None:
        return None
    return Resolved(
        version_id=row.version_id,
        number=row.number,
        manifest=row.manifest,
        manifest_digest=row.manifest_digest,
        obstacle=row.obstacle if row.version_id is not None else None,
    )


def _aliases_of(owner: Any) -> ColumnElement[Any]:
    """SQL of alias → version id of an adapter, as a JSON object; NULL when it has none."""
    named = func.json_object_agg(AliasRow.name, aggregate_order_by(AliasRow.version_id, AliasRow.name))
    return select(named).where(AliasRow.adapter_id == owner).scalar_subquery()


def _alias_names_of_version() -> ColumnElement[Any]:
    """SQL of the names of the aliases of a version, as an array; NULL when it has none."""
    names = func.array_agg(aggregate_order_by(AliasRow.name, AliasRow.name))
    return select(names).where(AliasRow.version_id == VersionRow.version_id).correlate(VersionRow).scalar_subquery()


def _suspended() -> ColumnElement[bool]:
    return (
        exists()
        .where(
            SuspensionRow.tenant == AdapterRow.tenant,
            SuspensionRow.user_id == AdapterRow.user_id,
            SuspensionRow.adapter.in_(("", AdapterRow.name)),
        )
        .correlate(AdapterRow)
    )


def _among_suspended(tenant: str) -> ColumnElement[bool]:
    """SQL of "is suspended" that begins at the suspensions: they are few among many adapters."""
    named = aliased(AdapterRow)
    stopped = select(named.id).join(
        SuspensionRow,
        and_(
            SuspensionRow.tenant == named.tenant,
            SuspensionRow.user_id == named.user_id,
            or_(SuspensionRow.adapter == "", SuspensionRow.adapter == named.name),
        ),
    )
    return AdapterRow.id.in_(stopped.where(SuspensionRow.tenant == tenant))


def _summaries() -> Selected:
    counted = select(func.count()).where(VersionRow.adapter_id == AdapterRow.id).correlate(AdapterRow)
    live = VersionRow.__table__.alias("live")
    alias = AliasRow.__table__.alias("live_alias")
    named = and_(alias.c.adapter_id == AdapterRow.id, alias.c.name == LIVE)
    return (
        select(
            AdapterRow.id,
            AdapterRow.tenant,
            AdapterRow.user_id,
            AdapterRow.name,
            AdapterRow.created_at,
            _aliases_of(AdapterRow.id).label("aliases"),
            counted.scalar_subquery().label("versions"),
            _suspended().label("suspended"),
            live.c.version_id.label("live_version_id"),
            live.c.number.label("live_number"),
            live.c.state.label("live_state"),
            live.c.base_id.label("live_base_id"),
            live.c.size_bytes.label("live_size_bytes"),
            live.c.ready_at.label("live_ready_at"),
            live.c.manifest[_OWN_LOSS].as_string().label("live_own_loss"),
        )
        .outerjoin(alias, named)
        .outerjoin(live, live.c.version_id == alias.c.version_id)
    )


def _adapter_conditions(wanted: AdapterFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [AdapterRow.tenant == wanted.tenant]
    if wanted.user is not None:
        conditions.append(wanted.user == _USER)
    if wanted.search is not None:
        user, slash, name = wanted.search.partition("/")
        conditions += [user == _USER, *_begins(_NAME, name)] if slash else _begins(_USER, user)
    if wanted.created_since is not None:
        conditions.append(AdapterRow.created_at >= wanted.created_since)
    if wanted.suspended is not None:
        conditions.append(_among_suspended(wanted.tenant) if wanted.suspended else ~_suspended())
    if wanted.alias is not None:
        conditions.append(exists().where(AliasRow.adapter_id == AdapterRow.id, *_named(wanted.alias)))
    if wanted.base is not None or wanted.state is not None:
        version = _in_state(wanted.state)
        if wanted.base is not None:
            version.append(VersionRow.base_id == wanted.base)
        conditions.append(exists().where(VersionRow.adapter_id == AdapterRow.id, *version))
    return conditions


def _version_conditions(wanted: VersionFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [AdapterRow.tenant == wanted.tenant, *_in_state(wanted.state)]
    if wanted.user is not None:
        conditions.append(wanted.user == _USER)
    if wanted.base is not None:
        conditions.append(VersionRow.base_id == wanted.base)
    if wanted.transcript is not None:
        trained = select(VersionTranscriptRow.version_id).where(VersionTranscriptRow.transcript_id == wanted.transcript)
        conditions.append(VersionRow.version_id.in_(trained))
    return conditions


def _named(alias: str) -> list[ColumnElement[bool]]:
    """The second condition tells PostgreSQL that `ix_alias_name` holds every such row."""
    return [AliasRow.name == alias, *([AliasRow.name != text(f"'{LIVE}'")] if alias != LIVE else [])]


def _in_state(state: State | None) -> list[ColumnElement[bool]]:
    """The second condition tells PostgreSQL that `ix_adapter_version_state` holds every such row."""
    if state is None:
        return []
    return [VersionRow.state == state, *([VersionRow.state != text("'ready'")] if state != State.READY else [])]


def _begins(column: Any, prefix: str) -> list[ColumnElement[bool]]:
    """A range instead of LIKE, so that the index decides and no character of the prefix is special."""
    if not prefix:
        return []
    return [column >= prefix, column < prefix[:-1] + chr(ord(prefix[-1]) + 1)]


_VERSION_COLUMNS = (
    AdapterRow.tenant,
    AdapterRow.user_id,
    AdapterRow.name,
    AdapterRow.id.label("adapter_id"),
    VersionRow.version_id,
    VersionRow.number,
    VersionRow.state,
    VersionRow.base_id,
    VersionRow.content_digest,
    VersionRow.size_bytes,
    VersionRow.created_at,
    VersionRow.ready_at,
    VersionRow.suspended_at,
    VersionRow.retired_at,
    VersionRow.removed_at,
    VersionRow.erased_at,
    VersionRow.reason,
    VersionRow.reason_field,
)


def _versions() -> Selected:
    return select(*_VERSION_COLUMNS, _alias_names_of_version().label("aliases")).join(
        AdapterRow, AdapterRow.id == VersionRow.adapter_id
    )


def _details() -> Selected:
    newest = (
        select(func.json_build_object("at", EvaluationReportRow.at, "report", EvaluationReportRow.report))
        .where(EvaluationReportRow.version_id == VersionRow.version_id)
        .order_by(EvaluationReportRow.id.desc())
        .limit(1)
        .correlate(VersionRow)
    )
    return select(
        *_VERSION_COLUMNS,
        _alias_names_of_version().label("aliases"),
        obstacle().label("obstacle"),
        VersionRow.manifest,
        VersionRow.manifest_digest,
        VersionRow.sealed_bytes,
        VersionRow.signature,
        VersionRow.validation,
        newest.scalar_subquery().label("report"),
    ).join(AdapterRow, AdapterRow.id == VersionRow.adapter_id)
