"""Moving aliases: compare-and-swap, with an entry in the audit trail."""

from __future__ import annotations

from kit.database import Database
from registry.errors import AdapterNotFound, AliasConflict, InvalidReference, NotServable, VersionNotFound
from registry.lifecycle.repository import LifecycleRepository
from registry.lifecycle.schemas import AliasMove
from registry.manifest import Owner
from registry.models import State


class Aliases:
    """Moves names."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def move_alias(self, owner: Owner, adapter: str, alias: str, *, move: AliasMove, actor: str) -> None:
        """Point an alias at a ready version if it still is where the caller saw it.

        An alias that already names the wanted version is left alone, whatever was expected, so
        that a caller who lost the answer may ask again.

        Raises:
            InvalidReference: for an alias made of digits, which would read as a version number.
            AdapterNotFound, VersionNotFound: when there is no such thing of this owner.
            NotServable: when the version is not ready.
            AliasConflict: when the alias names something else than expected.
        """
        if alias.isdecimal():
            raise InvalidReference(f"{alias} reads as a version number; an alias needs a letter", field="alias")
        async with self._database.transaction() as session:
            repository = LifecycleRepository(session)
            adapter_id = await _require_adapter(repository, owner, adapter)
            await _require_ready(repository, adapter_id, move.version_id)
            if await _swap(repository, adapter_id, alias, move):
                repository.record(
                    actor,
                    f"alias {alias}",
                    adapter_id=adapter_id,
                    version_id=move.version_id,
                    before=move.expected_version_id,
                    after=move.version_id,
                    why=move.why or None,
                )
                return
            current = await repository.get_alias(adapter_id, alias)
        if current != move.version_id:
            raise AliasConflict(
                f"alias {alias} names {current or 'nothing'}, not {move.expected_version_id or 'nothing'}",
                field="expected_version_id",
                current_version_id=current,
            )


async def _require_adapter(repository: LifecycleRepository, owner: Owner, adapter: str) -> int:
    found = await repository.get_adapter(owner, adapter)
    if found is None:
        raise AdapterNotFound(f"user {owner.user} has no adapter {adapter}", field="adapter")
    return found


async def _require_ready(repository: LifecycleRepository, adapter_id: int, version_id: str) -> None:
    row = await repository.lock_version(version_id)
    if row is None or row.adapter_id != adapter_id:
        raise VersionNotFound(f"this adapter has no version {version_id}", field="version_id")
    if row.state != State.READY:
        raise NotServable(f"version {version_id} is {row.state}", field="version_id")


async def _swap(repository: LifecycleRepository, adapter_id: int, alias: str, move: AliasMove) -> bool:
    if move.expected_version_id is None:
        return await repository.add_alias(adapter_id, alias, move.version_id)
    if move.expected_version_id == move.version_id:
        return False  # no move, so nothing for the audit trail
    return await repository.swap_alias(adapter_id, alias, version_id=move.version_id, expected=move.expected_version_id)
