"""Moving aliases: compare-and-swap, promote, rollback; each move is remembered and written into the audit trail.

Every move runs under the adapter's lock, in one transaction that checks the gate, moves `live`, lets `previous` name
what `live` named before, and writes history and audit: after a crash either all of it has happened or nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from kit.database import Database
from registry.catalog.cursor import read_cursor, write_cursor
from registry.errors import (
    AdapterNotFound,
    AliasConflict,
    AliasNotFound,
    GateClosed,
    InvalidReference,
    NothingToRollBackTo,
    NotServable,
    VersionNotFound,
)
from registry.lifecycle.policy import TenantPolicy, failures
from registry.lifecycle.repository import LifecycleRepository
from registry.lifecycle.schemas import (
    PREVIOUS,
    AliasHistory,
    AliasHistoryEntry,
    AliasMove,
    AliasMoved,
    MoveAction,
    Promotion,
    Rollback,
)
from registry.manifest import LIVE, Manifest, Owner
from registry.models import AliasMoveRow

_REMEMBERED_MOVES = 500


class Aliases:
    """Moves names."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def move_alias(self, owner: Owner, adapter: str, alias: str, *, move: AliasMove, actor: str) -> None:
        """Point an alias at a version that may be served if it still is where the caller saw it.

        An alias that already names the wanted version is left alone, whatever was expected, so
        that a caller who lost the answer may ask again.

        Raises:
            InvalidReference: for an alias made of digits, which would read as a version number.
            AdapterNotFound, VersionNotFound: when there is no such thing of this owner.
            NotServable: when the version may not be served.
            GateClosed: when the tenant's policy guards the alias and the version does not pass.
            AliasConflict: when the alias names something else than expected.
        """
        async with self._database.transaction() as session:
            steering = await _Steering.begin(LifecycleRepository(session), owner, adapter, actor=actor, why=move.why)
            await steering.require_servable(move.version_id)
            await steering.swap(alias, move.version_id, expected=(move.expected_version_id,), action="move")

    async def promote(self, owner: Owner, adapter: str, promotion: Promotion, *, actor: str) -> AliasMoved:
        """Let one alias name what another one names; asking again is no error.

        Raises:
            AdapterNotFound: when there is no such adapter.
            AliasNotFound: when `source` does not exist.
            NotServable, GateClosed, AliasConflict: as for `move_alias`.
        """
        async with self._database.transaction() as session:
            steering = await _Steering.begin(
                LifecycleRepository(session), owner, adapter, actor=actor, why=promotion.why
            )
            version_id = await steering.require_alias(promotion.source)
            if promotion.version_id not in (None, version_id):
                raise _conflict(promotion.source, version_id, promotion.version_id, field="version_id")
            await steering.require_servable(version_id)
            expected = (promotion.expected_version_id,) if promotion.expected_version_id else None
            before = await steering.swap(promotion.target, version_id, expected=expected, action="promote")
            return await steering.moved(promotion.target, version_id, before=before)

    async def rollback(self, owner: Owner, adapter: str, rollback: Rollback, *, actor: str) -> AliasMoved:
        """Let an alias name what it named before, in one call, passing over what may not be served any more.

        `live` goes back to `previous`, and otherwise along its history; `previous` then names what was live before
        that, so that a second rollback goes back further. A version that was live once has passed its gate; but where
        the policy has come to want signatures, an unsigned one is passed over.

        Raises:
            AdapterNotFound, AliasNotFound: for the first part of the name that is unknown.
            NothingToRollBackTo: when no earlier version may be served.
            AliasConflict: when the alias does not name `expected_version_id`.
        """
        async with self._database.transaction() as session:
            steering = await _Steering.begin(
                LifecycleRepository(session), owner, adapter, actor=actor, why=rollback.why
            )
            return await steering.roll_back(rollback.alias, expected=rollback.expected_version_id)

    async def history(
        self, owner: Owner, adapter: str, *, alias: str | None, cursor: str | None, limit: int
    ) -> AliasHistory:
        """Return the moves of one alias, or of all, the newest first.

        Raises:
            AdapterNotFound: when there is no such adapter.
            InvalidReference: for a cursor that no earlier page gave.
        """
        (before,) = read_cursor(cursor, "moves", int) or (None,)
        async with self._database.transaction() as session:
            repository = LifecycleRepository(session)
            adapter_id = await repository.get_adapter(owner, adapter)
            if adapter_id is None:
                raise _no_adapter(owner, adapter)
            rows = await repository.list_moves(adapter_id, alias=alias, before=before, limit=limit + 1)
        moves = tuple(_entry(row, number) for row, number in rows[:limit])
        more = write_cursor("moves", rows[limit - 1][0].id) if len(rows) > limit else None
        return AliasHistory(moves=moves, next_cursor=more)


class _Steering:
    """One adapter whose lock this transaction holds, and who steers it why."""

    def __init__(
        self, repository: LifecycleRepository, owner: Owner, adapter_id: int, *, actor: str, why: str | None
    ) -> None:
        self._repository = repository
        self._owner = owner
        self._adapter_id = adapter_id
        self._actor = actor
        self._why = why

    @classmethod
    async def begin(
        cls, repository: LifecycleRepository, owner: Owner, adapter: str, *, actor: str, why: str
    ) -> _Steering:
        adapter_id = await repository.lock_adapter(owner, adapter)
        if adapter_id is None:
            raise _no_adapter(owner, adapter)
        return cls(repository, owner, adapter_id, actor=actor, why=why or None)

    async def require_alias(self, alias: str) -> str:
        found = await self._repository.get_alias(self._adapter_id, alias)
        if found is None:
            raise AliasNotFound(f"this adapter has no alias {alias}", field="alias")
        return found

    async def require_servable(self, version_id: str) -> None:
        row = await self._repository.get_version(version_id)
        if row is None or row.adapter_id != self._adapter_id:
            raise VersionNotFound(f"this adapter has no version {version_id}", field="version_id")
        if why := await self._repository.get_obstacle(version_id):
            raise NotServable(f"version {version_id} is not servable: {why}", field="version_id")

    async def swap(
        self, alias: str, version_id: str, *, expected: Sequence[str | None] | None, action: MoveAction
    ) -> str | None:
        """Move the alias through its gate; return what it named. `expected` None = wherever it is."""
        if alias.isdecimal():
            raise InvalidReference(f"{alias} reads as a version number; an alias needs a letter", field="alias")
        current = await self._repository.get_alias(self._adapter_id, alias)
        if current == version_id:
            return current  # no move, so nothing for the audit trail
        if expected is not None and current not in expected:
            raise _conflict(alias, current, expected[0], field="expected_version_id")
        await self._pass_gate(alias, version_id)
        await self._point(alias, version_id, before=current, action=action)
        if alias == LIVE and current is not None:
            await self._point_previous(current, action=action)
        return current

    async def roll_back(self, alias: str, *, expected: str | None) -> AliasMoved:
        """Move the alias back along its history; see `Aliases.rollback`."""
        current = await self._repository.get_alias(self._adapter_id, alias)
        moves = await self._repository.last_moves(self._adapter_id, alias, limit=_REMEMBERED_MOVES)
        if not moves:
            raise AliasNotFound(f"this adapter has no alias {alias}", field="alias")
        if current is not None and expected not in (None, current):
            if (moves[-1].action, moves[-1].before_version_id) == ("rollback", expected):
                return await self.moved(alias, current, before=expected)  # the answer was lost
            raise _conflict(alias, current, expected, field="expected_version_id")
        earlier = _earlier(moves, current)
        held = await self._repository.get_alias(self._adapter_id, PREVIOUS) if alias == LIVE else None
        signed = await self._wants_signed(alias)
        target = await self._first_servable([*([held] if held else []), *earlier], besides=current, signed=signed)
        if target is None:
            raise NothingToRollBackTo(f"alias {alias} named nothing else that can be served", field="alias")
        if target not in earlier:
            await self._pass_gate(alias, target)  # somebody pointed `previous` at what was never live
        await self._point(alias, target, before=current, action="rollback")
        if alias == LIVE:
            below = earlier[earlier.index(target) + 1 :] if target in earlier else earlier
            await self._point_previous(
                await self._first_servable(below, besides=target, signed=signed), action="rollback"
            )
        return await self.moved(alias, target, before=current)

    async def moved(self, alias: str, version_id: str, *, before: str | None) -> AliasMoved:
        """Return a move with the numbers of its versions."""
        return AliasMoved(
            alias=alias,
            version_id=version_id,
            before_version_id=before,
            version=await self._number(version_id),
            before_version=await self._number(before) if before else None,
        )

    async def _number(self, version_id: str) -> int | None:
        row = await self._repository.get_version(version_id)
        return row.number if row else None

    async def _wants_signed(self, alias: str) -> bool:
        policy = TenantPolicy.of(await self._repository.get_policy(self._owner.tenant))
        return policy.require_signature and alias in policy.gate.aliases

    async def _first_servable(self, version_ids: Sequence[str], *, besides: str | None, signed: bool) -> str | None:
        for version_id in version_ids:
            if version_id == besides or await self._repository.get_obstacle(version_id) is not None:
                continue
            row = await self._repository.get_version(version_id)
            if row is not None and not (signed and row.signature is None):
                return version_id
        return None

    async def _pass_gate(self, alias: str, version_id: str) -> None:
        policy = TenantPolicy.of(await self._repository.get_policy(self._owner.tenant))
        if alias not in policy.gate.aliases:
            return
        row = await self._repository.get_version(version_id)
        if row is None or row.manifest is None:
            raise NotServable(f"version {version_id} has no manifest", field="version_id")
        manifest = Manifest.model_validate(row.manifest)
        attached = await self._repository.newest_report(version_id)
        reasons = failures(policy.gate.of(manifest), attached.report if attached else manifest.evaluation)
        if policy.require_signature and row.signature is None:
            reasons.append("the version is not signed")
        if reasons:
            raise GateClosed(
                f"the policy of tenant {self._owner.tenant} keeps {alias} from version {row.number}: "
                + "; ".join(reasons),
                field="version_id",
                reasons=reasons,
            )

    async def _point_previous(self, version_id: str | None, *, action: MoveAction) -> None:
        before = await self._repository.get_alias(self._adapter_id, PREVIOUS)
        if before != version_id:
            await self._point(PREVIOUS, version_id, before=before, action=action)

    async def _point(self, alias: str, version_id: str | None, *, before: str | None, action: MoveAction) -> None:
        await point(
            self._repository,
            self._adapter_id,
            alias,
            version_id,
            before=before,
            action=action,
            actor=self._actor,
            why=self._why,
        )


async def point(
    repository: LifecycleRepository,
    adapter_id: int,
    alias: str,
    version_id: str | None,
    *,
    before: str | None,
    action: MoveAction,
    actor: str,
    why: str | None,
) -> None:
    """Let an alias name a version, or nothing, and write it down; the caller holds the adapter's lock."""
    if version_id is None:
        await repository.remove_alias(adapter_id, alias)
    else:
        await repository.set_alias(adapter_id, alias, version_id)
    repository.add_move(adapter_id, alias, action=action, version_id=version_id, before=before, actor=actor, why=why)
    repository.record(
        actor,
        f"{'alias' if action == 'move' else action} {alias}",
        adapter_id=adapter_id,
        version_id=version_id or before,
        before=before,
        after=version_id,
        why=why,
    )


def _earlier(moves: Sequence[AliasMoveRow], current: str | None) -> list[str]:
    """Return what the alias named before `current`, the newest first: a rollback takes back what it left."""
    stack: list[str] = []
    for move in moves:
        if move.version_id is None:
            continue
        if move.action == "rollback" and move.version_id in stack:
            while stack[-1] != move.version_id:
                stack.pop()
            continue
        if move.action == "rollback" and stack:
            stack.pop()
        stack.append(move.version_id)
    if stack and stack[-1] == current:
        stack.pop()
    return stack[::-1]


def _entry(row: AliasMoveRow, number: int | None) -> AliasHistoryEntry:
    return AliasHistoryEntry(
        alias=row.name,
        action=row.action,
        version_id=row.version_id,
        version=number,
        before_version_id=row.before_version_id,
        at=row.at,
        actor=row.actor,
        why=row.why,
    )


def _conflict(alias: str, current: str | None, expected: str | None, *, field: str) -> AliasConflict:
    return AliasConflict(
        f"alias {alias} names {current or 'nothing'}, not {expected or 'nothing'}",
        field=field,
        current_version_id=current,
    )


def _no_adapter(owner: Owner, adapter: str) -> AdapterNotFound:
    return AdapterNotFound(f"{owner.path} has no adapter {adapter}", field="adapter")
