"""`lorry erase`, as a process, against a real registry."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.database import Database
from kit.settings import DatabaseSettings
from lorry.home import Home
from registry.client import RegistryClient
from serving.erasure.desk import ErasureDesk
from tests.support.command import Lorry
from tests.support.nursery import Nursery
from tests.support.registry_server import client, registry_settings, registry_url
from tests.support.steering import let_urls_lapse, publish
from tests.support.training_jobs import talks
from transcripts.store import TranscriptStore

__all__ = ["client", "registry_settings", "registry_url"]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(tmp_path / "home")


@pytest.fixture
def lorry(nursery: Nursery, registry_url: str, database_settings: DatabaseSettings, home: Home) -> Lorry:
    return Lorry(nursery, registry_url=registry_url, database_url=database_settings.database_url, home=home.path)


async def test_a_user_is_counted_erased_and_reported(
    lorry: Lorry, database: Database, client: RegistryClient, home: Home, tmp_path: Path
) -> None:
    code, _, complained = await lorry("erase", "ann", "--dry-run")
    assert code == 3, complained
    async with database.transaction() as session:
        await TranscriptStore(session).add("default", "ann", talks("ann"))
    await publish(client, tmp_path)
    (home.folder("profiles", "default", "ann") / "profile.json").write_text("words")
    counted = await lorry.json("erase", "ann", "--dry-run")
    assert counted["transcripts"] == {"transcripts": 12, "turns": 72}
    assert (counted["adapters"], counted["homes"]) == ({"versions": 1, "keys": 1}, {"files here": 1})

    code, _, complained = await lorry("erase", "ann")
    assert (code, "pass --yes" in complained) == (2, True)
    code, told, _ = await lorry("erase", "ann", "--yes", "--json")
    assert code == 4
    assert "upload URLs of 1 version" in told
    assert "not everything is gone yet" in (await lorry("erase", "ann", "--yes"))[1]
    await let_urls_lapse(database)
    report = await lorry.json("erase", "ann", "--yes", "--follow")
    assert report["state"] == "done"
    assert not (home.path / "profiles" / "default" / "ann").exists()
    assert (await lorry.json("erase", "ann", "--yes"))["id"] == report["id"]
    assert (await ErasureDesk(database).report("default", "ann")).state == "done"
    assert (await lorry("erase", "bob", "--yes"))[0] == 3


async def test_a_name_that_is_not_waited_for_cannot_be_declared_gone(lorry: Lorry, database: Database) -> None:
    async with database.transaction() as session:
        await TranscriptStore(session).add("default", "ann", talks("ann"))
    code, _, complained = await lorry("erase", "ann", "--yes", "--gone", "far-away")
    assert code == 3
    assert "far-away" in complained
