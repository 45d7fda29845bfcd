"""Where a version stands: suspend, resume, retire; and suspending a whole user or one adapter of theirs."""

from __future__ import annotations

from kit.database import Database
from registry.catalog.cursor import read_cursor, write_cursor
from registry.errors import AdapterNotFound, ArtifactMissing, IllegalTransition, VersionInUse, VersionNotFound
from registry.lifecycle.remains import Remains, owner_of
from registry.lifecycle.repository import LifecycleRepository
from registry.lifecycle.schemas import Suspension, SuspensionPage, VersionState
from registry.manifest import Owner
from registry.models import AdapterRow, State, SuspensionRow, VersionRow
from registry.repository import subject_of

_WHOLE_USER = ""


class Standing:
    """Stops what must not serve, and lets it serve again. Doing either twice is no error."""

    def __init__(self, database: Database, remains: Remains) -> None:
        self._database = database
        self._remains = remains

    async def suspend_version(self, version_id: str, *, why: str, actor: str) -> VersionState:
        """Stop one version everywhere; its aliases keep naming it, and resolve to a refusal.

        Raises:
            VersionNotFound: when there is none.
            IllegalTransition: when it is neither ready nor suspended.
        """
        async with self._database.transaction() as session:
            repository = LifecycleRepository(session)
            await repository.transition(
                version_id, State.SUSPENDED, was=[State.READY], actor=actor, why=why, reason=why
            )
            return await _state(repository, version_id, State.SUSPENDED)

    async def resume_version(self, version_id: str, *, why: str, actor: str) -> VersionState:
        """Let a suspended version serve again.

        Raises:
            VersionNotFound: when there is none.
            IllegalTransition: when it is neither suspended nor ready.
            ArtifactMissing: when its bytes are not all there; it was suspended for that, and stays so.
        """
        async with self._database.transaction() as session:
            repository = LifecycleRepository(session)
            row, adapter = await _require(repository, version_id)
        damage = None
        if row.state == State.SUSPENDED:
            damage = await self._remains.damage(owner_of(adapter), version_id, sealed_bytes=row.sealed_bytes)
        if damage:
            raise ArtifactMissing(f"version {version_id} cannot serve: {damage}", field="version_id")
        async with self._database.transaction() as session:
            repository = LifecycleRepository(session)
            await repository.transition(
                version_id, State.READY, was=[State.SUSPENDED], actor=actor, why=why, action="resumed", reason=None
            )
            return await _state(repository, version_id, State.READY)

    async def retire_version(self, version_id: str, *, why: str, actor: str) -> VersionState:
        """Take a version out of use for good; retention removes its bytes later.

        Raises:
            VersionNotFound: when there is none.
            VersionInUse: when an alias names it.
            IllegalTransition: when it is neither ready, suspended nor retired.
        """
        async with self._database.transaction() as session:
            repository = LifecycleRepository(session)
            await repository.lock_adapter_of(version_id)
            if aliases := [row.name for row in await repository.aliases_of([version_id])]:
                raise VersionInUse(f"{', '.join(aliases)} name {version_id}", field="version_id", aliases=aliases)
            await repository.transition(
                version_id, State.RETIRED, was=[State.READY, State.SUSPENDED], actor=actor, why=why, reason=why
            )
            return await _state(repository, version_id, State.RETIRED)

    async def suspend(self, owner: Owner, adapter: str | None, *, why: str, actor: str) -> Suspension:
        """Stop every adapter of an owner, or one, everywhere; what they publish meanwhile does not serve either.

        Raises:
            AdapterNotFound: when the owner has no (such) adapter: a misspelt name must not look like success.
        """
        async with self._database.transaction() as session:
            repository = LifecycleRepository(session)
            adapter_id = await _require_subject(repository, owner, adapter)
            if await repository.add_suspension(owner, adapter or _WHOLE_USER, actor=actor, why=why):
                _record(repository, "suspend", owner, adapter, adapter_id=adapter_id, actor=actor, why=why)
            row = await repository.get_suspension(owner, adapter or _WHOLE_USER)
        if row is None:
            raise AssertionError("it was written in this transaction")
        return _suspension(row)

    async def resume(self, owner: Owner, adapter: str | None, *, why: str, actor: str) -> None:
        """Let an owner, or one adapter, serve again; a suspension of the other kind stays.

        Raises:
            AdapterNotFound: when the owner has no (such) adapter.
        """
        async with self._database.transaction() as session:
            repository = LifecycleRepository(session)
            adapter_id = await _require_subject(repository, owner, adapter)
            if await repository.remove_suspension(owner, adapter or _WHOLE_USER):
                _record(repository, "resume", owner, adapter, adapter_id=adapter_id, actor=actor, why=why)

    async def list_suspensions(self, tenant: str, *, cursor: str | None, limit: int) -> SuspensionPage:
        """Return one page of a tenant's suspended users and adapters.

        Raises:
            InvalidReference: for a cursor that no earlier page gave.
        """
        after = read_cursor(cursor, "suspensions", str, str)
        async with self._database.transaction() as session:
            rows = await LifecycleRepository(session).list_suspensions(tenant, after=after, limit=limit + 1)
        more = write_cursor("suspensions", rows[limit - 1].user_id, rows[limit - 1].adapter) if rows[limit:] else None
        return SuspensionPage(suspensions=tuple(_suspension(row) for row in rows[:limit]), next_cursor=more)


async def _require(repository: LifecycleRepository, version_id: str) -> tuple[VersionRow, AdapterRow]:
    row, adapter = await repository.get_version(version_id), await repository.get_adapter_of(version_id)
    if row is None or adapter is None:
        raise VersionNotFound(f"there is no version {version_id}", field="version_id")
    return row, adapter


async def _state(repository: LifecycleRepository, version_id: str, wanted: State) -> VersionState:
    """Return where the version stands after a transition that may have found it there already."""
    row = await repository.get_version(version_id)
    if row is None:
        raise VersionNotFound(f"there is no version {version_id}", field="version_id")
    if row.state != wanted:
        raise IllegalTransition(f"version {version_id} is {row.state}; it cannot become {wanted}", field="version_id")
    return VersionState(version_id=row.version_id, version=row.number, state=row.state, reason=row.reason)


async def _require_subject(repository: LifecycleRepository, owner: Owner, adapter: str | None) -> int | None:
    if adapter is None:
        if not await repository.has_adapters(owner):
            raise AdapterNotFound(f"{owner.path} has no adapters", field="user")
        return None
    found = await repository.get_adapter(owner, adapter)
    if found is None:
        raise AdapterNotFound(f"{owner.path} has no adapter {adapter}", field="adapter")
    return found


def _record(
    repository: LifecycleRepository,
    verb: str,
    owner: Owner,
    adapter: str | None,
    *,
    adapter_id: int | None,
    actor: str,
    why: str,
) -> None:
    whole = adapter is None
    repository.record(
        actor,
        f"{verb}-{'owner' if whole else 'adapter'}",
        adapter_id=adapter_id,
        tenant=owner.tenant,
        subject=subject_of(owner),
        before="serving" if verb == "suspend" else "suspended",
        after="suspended" if verb == "suspend" else "serving",
        why=why,
    )


def _suspension(row: SuspensionRow) -> Suspension:
    return Suspension(
        owner=Owner(tenant=row.tenant, user=row.user_id),
        adapter=row.adapter or None,
        since=row.since,
        actor=row.actor,
        why=row.why,
    )
