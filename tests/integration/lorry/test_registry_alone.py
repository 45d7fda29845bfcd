"""docs/registry-alone.md, step by step: a registry without `lorry up`, on a PostgreSQL and an S3 of one's own."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from kit.settings import StorageSettings
from kit.storage import ObjectStorage
from lorry.local.postgres import create_database, database_url, drop_database
from tests.support.ports import free_port_block

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "registry-alone.md").read_text()
TOKEN = "operator-" + "0" * 16
Environment = dict[str, str]


@pytest.fixture
async def environment(
    postgres_directory: Path, seaweed_settings: StorageSettings, tmp_path: Path
) -> AsyncIterator[Environment]:
    """What the page exports, for an empty database and an empty bucket of this test's own."""
    name = f"alone-{uuid.uuid4().hex}"
    await create_database(postgres_directory, name=name)
    storage = seaweed_settings.model_copy(update={"s3_bucket": name})
    await ObjectStorage(storage).create_bucket()
    secret = storage.s3_secret_access_key
    yield {
        "LORRY_DATABASE_URL": database_url(postgres_directory, name=name),
        "LORRY_S3_ENDPOINT_URL": str(storage.s3_endpoint_url),
        "LORRY_S3_BUCKET": name,
        "LORRY_S3_ACCESS_KEY_ID": str(storage.s3_access_key_id),
        "LORRY_S3_SECRET_ACCESS_KEY": secret.get_secret_value() if secret else "",
        "LORRY_MASTER_KEY_FILE": str(tmp_path / "etc" / "master-keys.json"),
        "LORRY_REGISTRY_TOKEN": TOKEN,
        "LORRY_REGISTRY_ENGINE_TOKEN": "engine-" + "0" * 16,
        "LORRY_REGISTRY_HOST": "127.0.0.1",
        "LORRY_REGISTRY_PORT": str(free_port_block(1)),
    }
    await drop_database(postgres_directory, name=name)


async def start(environment: Environment, home: Path, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *arguments),
        env=os.environ | environment | {"LORRY_HOME": str(home)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


async def finish(environment: Environment, home: Path, *arguments: str) -> tuple[int | None, str]:
    process = await start(environment, home, *arguments)
    told, _ = await process.communicate()
    return process.returncode, told.decode()


async def ready(http: httpx.AsyncClient, process: asyncio.subprocess.Process) -> httpx.Response:
    """Ask `/readyz` until the process listens."""
    while process.returncode is None:
        try:
            return await http.get("/readyz")
        except httpx.TransportError:
            await asyncio.sleep(0.1)
    raise AssertionError("it ended by itself")


async def test_the_page_leads_to_a_registry_that_is_ready(environment: Environment, tmp_path: Path) -> None:
    once = PAGE.partition("## Every time")[0]
    exported = re.findall(r"(LORRY_[A-Z0-9_]+)=", "\n".join(re.findall(r"^ *export .*$", once, re.MULTILINE)))
    assert set(exported) == set(environment)
    for command in ("lorry keys init", "python -m lorry.schema", "python -m registry"):
        assert f"{command}\n" in PAGE
    (tmp_path / "etc").mkdir()
    home = tmp_path / "home"
    assert (await finish(environment, home, "lorry.cli", "keys", "init"))[0] == 0
    for _ in range(2):
        assert await finish(environment, home, "lorry.schema") == (0, "the schema is current\n")
    process = await start(environment, home, "registry")
    try:
        headers = {"authorization": f"Bearer {TOKEN}"}
        url = f"http://127.0.0.1:{environment['LORRY_REGISTRY_PORT']}"
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as http, asyncio.timeout(60):
            answer = await ready(http, process)
            assert (answer.status_code, answer.json()) == (200, {"status": "ready"})
            assert (await http.get("/v1/bases")).json() == []
            assert (await http.get("/metrics")).status_code == 200
            elsewhere = environment | {"LORRY_REGISTRY_URL": url}
            listed = await finish(elsewhere, home, "lorry.cli", "bases", "list", "--json")
            assert listed == (0, "[]\n")
    finally:
        process.send_signal(signal.SIGTERM)
        await process.communicate()
    assert not [path for path in home.rglob("*") if path.suffix == ".log"]  # the command started nothing of its own


async def test_a_schema_without_a_database_says_why(tmp_path: Path) -> None:
    code, told = await finish({}, tmp_path / "home", "lorry.schema")
    assert (code, "LORRY_DATABASE_URL" in told) == (2, True)
    nowhere = {"LORRY_DATABASE_URL": "postgresql+asyncpg://u:p@127.0.0.1:9/x"}
    code, told = await finish(nowhere, tmp_path / "home", "lorry.schema")
    assert (code, told.startswith("lorry.schema: "), "Traceback" in told) == (1, True, False)
