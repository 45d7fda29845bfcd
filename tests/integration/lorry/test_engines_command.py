"""`lorry engines`, as a process, against a real registry."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid
from pathlib import Path

import pytest

from kit.database import Database
from kit.settings import DatabaseSettings
from registry.client import RegistryClient
from registry.engines.schemas import Holdings, Registration, Tier
from tests.support.adapters import BASE
from tests.support.registry_server import TOKEN, client, registry_settings, registry_url
from tests.support.versions import add_version, execute

__all__ = ["client", "registry_settings", "registry_url"]


class Command:
    """Runs `lorry engines …` for a registry that runs elsewhere."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment

    async def __call__(self, *arguments: str) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "lorry.cli", "engines", *arguments),
            env=os.environ | self._environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        told, complained = await process.communicate()
        return process.returncode or 0, told.decode(), complained.decode()


@pytest.fixture
def command(registry_url: str, database_settings: DatabaseSettings, tmp_path: Path) -> Command:
    return Command(
        {
            "LORRY_HOME": str(tmp_path),
            "LORRY_DATABASE_URL": database_settings.database_url,
            "LORRY_S3_ENDPOINT_URL": "http://127.0.0.1:1",
            "LORRY_REGISTRY_URL": registry_url,
            "LORRY_REGISTRY_TOKEN": TOKEN,
            "COLUMNS": "200",
        }
    )


async def test_engines_are_shown_and_forgotten(
    command: Command,
    client: RegistryClient,
    database: Database,
) -> None:
    assert (await command())[1].startswith("No engine has registered")
    version_id = await add_version(database)
    registration = Registration(
        incarnation=uuid.uuid4().hex,
        base=BASE,
        address="http://gpu:8100",
        holdings=Holdings.of({version_id: Tier.DISK}),
    )
    await client.engines.register("gpu-7", registration)

    code, table, _ = await command()
    assert code == 0
    for cell in ("gpu-7", "alive", BASE.id, "http://gpu:8100"):
        assert cell in table
    (shown,) = json.loads((await command("--json"))[1])
    assert (shown["id"], shown["state"], shown["held"]) == ("gpu-7", "alive", {"disk": 1, "host": 0, "device": 0})
    (holder,) = json.loads((await command("holders", version_id, "--json"))[1])
    assert (holder["engine_id"], holder["tier"]) == ("gpu-7", "disk")

    code, _, complaint = await command("forget", "gpu-7")
    assert (code, "is alive" in complaint) == (4, True)
    await execute(database, "update engine set last_seen_at = now() - interval '5 minutes'")
    assert "LAPSED" in (await command())[1]
    assert (await command("forget", "gpu-7"))[0] == 0
    assert (await command("forget", "gpu-7"))[0] == 3
