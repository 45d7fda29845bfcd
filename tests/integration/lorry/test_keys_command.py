"""`lorry keys` as people and scripts run it, on a database that runs elsewhere."""

from __future__ import annotations

import asyncio
import json
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from sqlalchemy import text
from typer.testing import CliRunner

from kit.database import Database
from kit.master_keys import KeyFile
from kit.settings import DatabaseSettings
from lorry.cli import app
from registry.manifest import Owner
from registry.sealing.data_keys import DataKeys

OWNERS = [Owner(tenant="default", user=f"u{number}") for number in range(3)]
Command = Callable[..., Result]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "secrets" / "master-keys.json"


@pytest.fixture
def command(database_settings: DatabaseSettings, tmp_path: Path) -> Command:
    """Run `lorry keys …` in a thread: it has an event loop of its own."""
    environment = {
        "LORRY_HOME": str(tmp_path / "home"),
        "LORRY_DATABASE_URL": database_settings.database_url,
        "COLUMNS": "200",
    }

    async def run(*arguments: str) -> Result:
        runner = CliRunner(env=environment)
        return await asyncio.to_thread(runner.invoke, app, ["keys", *arguments])

    return run


async def as_json(command: Command, *arguments: str) -> Any:
    result = await command(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


async def test_init_makes_the_file_once(command: Command, path: Path) -> None:
    made = await as_json(command, "init")
    assert made == {"file": str(path), "primary": KeyFile(path).ring().primary}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert await as_json(command, "init") == made
    shown = (await command("init")).stdout
    assert "Keep a copy elsewhere" in shown
    assert all(key.hex() not in shown for key in KeyFile(path).ring().keys.values())


async def test_a_rotation_from_end_to_end(command: Command, path: Path, database: Database) -> None:
    await command("init")
    keys = [await DataKeys(database, KeyFile(path)).ensure(owner) for owner in OWNERS]
    [old] = await as_json(command, "list")
    assert old == {"id": KeyFile(path).ring().primary, "primary": True, "next": False, "held": True, "data_keys": 3}

    early = await command("forget", old["id"], "--json")
    assert early.exit_code == 4
    assert json.loads(early.stderr)["error"] == "master-key-in-use"
    rotated = await as_json(command, "rotate")
    assert (rotated["rewrapped"], rotated["unreadable"]) == (3, [])
    listed = {each["id"]: each for each in await as_json(command, "list")}
    assert listed[rotated["master_key_id"]] == {**old, "id": rotated["master_key_id"]}
    assert listed[old["id"]] == {**old, "primary": False, "data_keys": 0}
    assert "can be forgotten" in (await command("list")).stdout

    unasked = await command("forget", old["id"])
    assert (unasked.exit_code, "--yes" in unasked.stderr) == (2, True)
    assert old["id"] in KeyFile(path).ring().keys
    assert await as_json(command, "forget", old["id"], "--yes") == {"forgotten": old["id"]}
    assert [each["id"] for each in await as_json(command, "list")] == [rotated["master_key_id"]]
    fresh = DataKeys(database, KeyFile(path))
    assert [await fresh.open(key.id) for key in keys] == [key.secret for key in keys]


async def test_a_key_that_was_added_wraps_from_the_rotation_on(
    command: Command, path: Path, database: Database, tmp_path: Path
) -> None:
    await command("init")
    old = KeyFile(path).ring().primary
    keys = [await DataKeys(database, KeyFile(path)).ensure(owner) for owner in OWNERS]
    added = (await as_json(command, "add"))["next"]
    assert (await as_json(command, "add"))["next"] == added
    async with database.transaction() as session:
        trail = await session.execute(text("select actor, action, subject from audit"))
        assert [tuple(row) for row in trail] == [("lorry", "master-key-added", added)]  # once
    assert [(each["id"], each["next"]) for each in await as_json(command, "list")] == [(old, False), (added, True)]
    elsewhere = tmp_path / "another-host.json"
    shutil.copy2(path, elsewhere)

    rotated = await as_json(command, "rotate")
    assert (rotated["master_key_id"], rotated["rewrapped"]) == (added, 3)
    assert (await command("list")).exit_code == 0
    host = DataKeys(database, KeyFile(elsewhere))
    await host.check()
    assert [await host.open(key.id) for key in keys] == [key.secret for key in keys]


async def test_finishing_adds_no_key(command: Command, path: Path, database: Database) -> None:
    await command("init")
    await DataKeys(database, KeyFile(path)).ensure(OWNERS[0])
    primary = KeyFile(path).add_primary()  # as a rotation that was killed at once
    done = await as_json(command, "rotate", "--finish")
    assert (done["master_key_id"], done["rewrapped"]) == (primary, 1)
    assert "1 data keys" in (await command("rotate")).stdout
    assert len(KeyFile(path).ring().keys) == 3


async def test_a_master_key_that_is_missing_is_shown_and_fails_the_command(
    command: Command, path: Path, database: Database
) -> None:
    await command("init")
    await DataKeys(database, KeyFile(path)).ensure(OWNERS[0])
    lost = KeyFile(path).ring().primary
    path.unlink()
    listed = await command("list", "--json")
    assert listed.exit_code == 1
    assert {each["id"]: (each["held"], each["data_keys"]) for each in json.loads(listed.stdout)}[lost] == (False, 1)
    assert "MISSING" in (await command("list")).stdout
    assert (await command("rotate")).exit_code == 1


async def test_a_file_that_others_can_read_is_refused(command: Command, path: Path) -> None:
    await command("init")
    path.chmod(0o644)
    for arguments in (["list"], ["rotate"], ["init"]):
        result = await command(*arguments)
        assert result.exit_code == 1
        assert "chmod 600" in result.stderr.replace("\n", " ")


async def test_a_key_that_is_not_there_is_not_forgotten(command: Command, path: Path) -> None:
    await command("init")
    assert (await command("forget", "file:none")).exit_code == 3
    primary = KeyFile(path).ring().primary
    result = await command("forget", primary)
    assert result.exit_code == 4
    assert "rotate first" in result.stderr
