"""The one rule of what may be served, and the one statement that moves a version and writes it down."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import func, select, text

from kit.database import Database
from registry.client import RegistryClient, draft_from_directory
from registry.models import AdapterRow, State, VersionRow
from registry.repository import RegistryRepository, obstacle, servable
from tests.support.adapters import BASE, write_adapter
from tests.support.registry_server import OWNER


async def publish(client: RegistryClient, directory: Path) -> str:
    write_adapter(directory)
    return (await client.publish(directory, draft=draft_from_directory(directory, owner=OWNER, base=BASE))).version_id


async def standing(database: Database, version_id: str) -> tuple[bool, str | None]:
    statement = select(servable(), obstacle()).select_from(VersionRow)
    statement = statement.join(AdapterRow, AdapterRow.id == VersionRow.adapter_id)
    async with database.transaction() as session:
        row = (await session.execute(statement.where(VersionRow.version_id == version_id))).one()
    return row[0], row[1]


@pytest.mark.parametrize(
    ("tenant", "user", "adapter", "why"),
    [
        ("default", "ann", "", "user suspended"),
        ("default", "ann", "profile", "adapter suspended"),
        ("default", "ann", "other", None),
        ("default", "bob", "", None),
        ("other", "ann", "", None),
    ],
)
async def test_a_suspension_holds_back_its_user_or_adapter_and_nobody_else(
    client: RegistryClient, database: Database, tmp_path: Path, tenant: str, user: str, adapter: str, why: str | None
) -> None:
    version_id = await publish(client, tmp_path / "a")
    assert await standing(database, version_id) == (True, None)
    async with database.transaction() as session:
        await session.execute(
            text("insert into suspension (tenant, user_id, adapter, actor, why) values (:t, :u, :a, 'x', 'y')"),
            {"t": tenant, "u": user, "a": adapter},
        )
    assert await standing(database, version_id) == (why is None, why)


async def test_a_transition_is_written_down_with_where_it_came_from(
    client: RegistryClient, database: Database, tmp_path: Path
) -> None:
    version_id = await publish(client, tmp_path / "a")
    async with database.transaction() as session:
        repository = RegistryRepository(session)
        assert await repository.transition(
            version_id, State.SUSPENDED, was=[State.READY], actor="ops", why="odd answers", reason="odd answers"
        )
    assert await standing(database, version_id) == (False, "suspended")
    async with database.transaction() as session:
        repository = RegistryRepository(session)
        assert not await repository.transition(version_id, State.RETIRED, was=[State.READY], actor="ops")
        assert await repository.transition(version_id, State.READY, was=[State.SUSPENDED], actor="ops", reason=None)
        rows = await session.execute(
            text('select action, "from", "to", actor, why, adapter_id is not null from audit where actor = \'ops\'')
        )
        assert [tuple(row) for row in rows] == [
            ("suspended", "ready", "suspended", "ops", "odd answers", True),
            ("ready", "suspended", "ready", "ops", None, True),
        ]


async def test_a_transition_that_is_rolled_back_leaves_no_entry(
    client: RegistryClient, database: Database, tmp_path: Path
) -> None:
    version_id = await publish(client, tmp_path / "a")
    with pytest.raises(RuntimeError):  # noqa: PT012 - what raises is the end of the block
        async with database.transaction() as session:
            repository = RegistryRepository(session)
            await repository.transition(
                version_id, State.RETIRED, was=[State.READY], actor="ops", retired_at=func.now()
            )
            raise RuntimeError
    assert await standing(database, version_id) == (True, None)
    async with database.transaction() as session:
        assert await session.scalar(text("select count(*) from audit where actor = 'ops'")) == 0
