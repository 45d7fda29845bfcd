"""`lorry api-keys` as people and scripts run it, on a database that runs elsewhere."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from kit.database import Database
from kit.settings import DatabaseSettings
from lorry.cli import app
from serving.gateway.keys import find_key

Command = Callable[..., Any]


@pytest.fixture
def command(database_settings: DatabaseSettings, tmp_path: Path) -> Command:
    """Run `lorry api-keys …` in a thread: it has an event loop of its own."""
    environment = {
        "LORRY_HOME": str(tmp_path / "home"),
        "LORRY_DATABASE_URL": database_settings.database_url,
        "COLUMNS": "200",
    }

    async def run(*arguments: str) -> Result:
        runner = CliRunner(env=environment)
        return await asyncio.to_thread(runner.invoke, app, ["api-keys", *arguments])

    return run


async def as_json(command: Command, *arguments: str) -> Any:
    result = await command(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


async def is_valid(database: Database, key: str) -> bool:
    async with database.transaction() as session:
        return await find_key(session, key) is not None


async def test_a_key_is_made_listed_rotated_and_revoked(command: Command, database: Database) -> None:
    made = await as_json(command, "create", "--scope", "query", "--scope", "chat", "--name", "app", "--days", "30")
    assert await is_valid(database, made["key"])
    (listed,) = await as_json(command, "list")
    assert (listed["key_id"], listed["name"], listed["scopes"]) == (made["key_id"], "app", ["chat", "query"])
    assert made["key"] not in json.dumps(listed)
    rotated = await as_json(command, "rotate", made["key_id"], "--overlap-hours", "1")
    assert await is_valid(database, made["key"])
    assert await is_valid(database, rotated["key"])
    assert await as_json(command, "revoke", made["key_id"]) == {"revoked": made["key_id"]}
    assert not await is_valid(database, made["key"])
    assert await is_valid(database, rotated["key"])
    table = await command("list")
    assert "revoked" in table.stdout
    assert rotated["key_id"] in table.stdout


async def test_a_key_is_printed_alone_on_its_line(command: Command, database: Database) -> None:
    result = await command("create")
    assert result.exit_code == 0
    assert await is_valid(database, result.stdout.splitlines()[0])


async def test_mistakes_are_named(command: Command) -> None:
    unknown = await command("create", "--scope", "everything")
    assert (unknown.exit_code, "profiles:read" in unknown.output) == (2, True)
    for verb in ("rotate", "revoke"):
        missing = await command(verb, "k0")
        assert (missing.exit_code, "no key 'k0' in force" in missing.output) == (3, True)


async def test_limits_are_shown_set_one_by_one_and_kept(command: Command) -> None:
    unset = {"requests_per_second": None, "burst": None, "concurrent": None}
    assert await as_json(command, "limits") == unset
    assert await as_json(command, "limits", "--burst", "7") == {**unset, "burst": 7}
    both = {**unset, "burst": 7, "requests_per_second": 2.5}
    assert await as_json(command, "limits", "--requests-per-second", "2.5") == both
    assert await as_json(command, "limits") == both
