"""A rotation of the master key that is killed, again and again: every key opens all the while, and it ends."""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from kit.database import Database
from kit.master_keys import KeyFile
from kit.sealing import new_key
from kit.settings import DatabaseSettings
from registry.manifest import Owner
from registry.sealing.data_keys import DataKeys, wrap_context
from registry.sealing.repository import SealingRepository, WrappedKey

pytestmark = pytest.mark.faults
COUNT = 3000


async def add_keys(database: Database, file: KeyFile) -> dict[str, bytes]:
    """Add many owners' keys at once; return key id → secret."""
    secrets = {f"k{uuid.uuid4().hex}": new_key() for _ in range(COUNT)}
    async with database.transaction() as session:
        repository = SealingRepository(session)
        for number, (key_id, secret) in enumerate(secrets.items()):
            master_key_id, wrapped = await file.wrap(secret, wrap_context(key_id))
            owner = Owner(tenant="default", user=f"u{number}")
            await repository.add(owner, WrappedKey(id=key_id, master_key_id=master_key_id, wrapped=wrapped))
    return secrets


async def count_wrapped_by(database: Database, master_key_id: str) -> int:
    async with database.transaction() as session:
        statement = text("select count(*) from data_key where master_key_id = :id")
        return int(await session.scalar(statement, {"id": master_key_id}) or 0)


@asynccontextmanager
async def held(database: Database, key_id: str) -> AsyncIterator[None]:
    """Hold one key's row while the block runs: a rotation gets no further."""
    async with database.transaction() as session:
        await session.execute(text("select 1 from data_key where id = :id for update"), {"id": key_id})
        yield


async def test_a_rotation_killed_at_any_time_can_be_finished(
    database: Database, database_settings: DatabaseSettings, tmp_path: Path
) -> None:
    path = tmp_path / "keys.json"
    file = KeyFile.create(path)
    secrets = await add_keys(database, file)
    environment = {
        **os.environ,
        "LORRY_HOME": str(tmp_path / "home"),
        "LORRY_DATABASE_URL": database_settings.database_url,
        "LORRY_MASTER_KEY_FILE": str(path),
        "LORRY_DATABASE_LOCK_TIMEOUT_SECONDS": "600",
        "LORRY_DATABASE_TIMEOUT_SECONDS": "600",
    }
    target, stopped_at = "", list[int]()
    in_order = sorted(secrets)
    for life, arguments in enumerate((["rotate"], ["rotate", "--finish"], ["rotate", "--finish"]), start=1):
        before = await count_wrapped_by(database, target)
        async with held(database, in_order[COUNT * life // 4]):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "lorry.cli", "keys", *arguments),
                env=environment,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
            while process.returncode is None:
                target = await file.primary_id()
                if before < await count_wrapped_by(database, target) < COUNT:
                    process.kill()
                    break
                await asyncio.sleep(0.01)
            assert await process.wait() == -9
        stopped_at.append(await count_wrapped_by(database, target))
        data_keys = DataKeys(database, KeyFile(path))
        sample = list(secrets)[::97]
        assert [await data_keys.open(key_id) for key_id in sample] == [secrets[key_id] for key_id in sample]
    assert sorted(stopped_at) == stopped_at
    assert stopped_at[-1] < COUNT
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lorry.cli", "keys", "rotate", "--finish"), env=environment
    )
    assert await process.wait() == 0
    assert await count_wrapped_by(database, target) == COUNT
    assert len(KeyFile(path).ring().keys) == 2
    data_keys = DataKeys(database, KeyFile(path))
    assert {key_id: await data_keys.open(key_id) for key_id in secrets} == secrets
