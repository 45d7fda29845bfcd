"""Versions and their lives written straight into the tables, for tests that need no files."""

from __future__ import annotations

import uuid
from typing import Any

from sqlalchemy import text

from kit.database import Database
from tests.support.adapters import BASE

_ADAPTER = """
    insert into adapter (tenant, user_id, name) values (:tenant, :user, 'profile')
    on conflict (tenant, user_id, name) do update set name = excluded.name returning id
"""
_VERSION = """
    insert into adapter_version (version_id, adapter_id, number, state, base_id, content_digest, manifest,
                                 manifest_digest, size_bytes, created_at)
    values (:version_id, :adapter, 1 + (select count(*) from adapter_version where adapter_id = :adapter), 'pending',
            :base, :version_id, '{}', :version_id, 1, now())
"""


async def execute(database: Database, statement: str, **values: Any) -> Any:
    """Run one statement in a transaction of its own; return its first value, if it has any."""
    async with database.transaction() as session:
        result: Any = await session.execute(text(statement), values)
        return result.scalar() if result.returns_rows else None


async def add_base(database: Database) -> None:
    """Register the tests' base model."""
    identity = BASE.model_dump_json()
    statement = "insert into base_model (id, identity) values (:id, cast(:identity as json)) on conflict do nothing"
    await execute(database, statement, id=BASE.id, identity=identity)


async def add_version(database: Database, *, user: str = "ann", tenant: str = "default") -> str:
    """Add a ready version of a user's adapter and return its id."""
    await add_base(database)
    version_id = f"v{uuid.uuid4().hex}"
    adapter = await execute(database, _ADAPTER, tenant=tenant, user=user)
    await execute(database, _VERSION, version_id=version_id, adapter=adapter, base=BASE.id)
    await set_state(database, version_id, "uploaded")
    await set_state(database, version_id, "ready")
    return version_id


async def set_state(database: Database, version_id: str, state: str) -> None:
    """Move a version on; an erased one loses its manifest."""
    erased = "manifest = case when :state = 'erased' then null else manifest end"
    ready = "ready_at = case when :state = 'ready' then coalesce(ready_at, now()) else ready_at end"
    statement = f"update adapter_version set state = :state, {erased}, {ready} where version_id = :id"
    await execute(database, statement, state=state, id=version_id)


async def suspend(database: Database, *, user: str, adapter: str = "", tenant: str = "default") -> None:
    """Stop a user, or one adapter of theirs, from being served."""
    statement = (
        "insert into suspension (tenant, user_id, adapter, actor, why) values (:tenant, :user, :adapter, 't', 't')"
    )
    await execute(database, statement, tenant=tenant, user=user, adapter=adapter)


async def resume(database: Database, *, user: str, adapter: str = "", tenant: str = "default") -> None:
    """Take a suspension back."""
    statement = "delete from suspension where tenant = :tenant and user_id = :user and adapter = :adapter"
    await execute(database, statement, tenant=tenant, user=user, adapter=adapter)
