"""An erasure whose process is killed at every step: whoever comes next goes on, and nothing is left."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from kit.database import Database
from kit.settings import DatabaseSettings, StorageSettings
from kit.storage import ObjectStorage
from lorry.home import Home
from registry.client import RegistryClient
from registry.manifest import Owner
from serving.erasure.report import STORES
from serving.extraction.repository import ProfileRepository
from serving.jobs.settings import BatchSettings
from tests.support.erasing import (
    Erasing,
    a_profile,
    fill_batches,
    fill_gateway,
    in_database,
    in_files,
    in_objects,
    store,
)
from tests.support.registry_server import TOKEN
from tests.support.steering import let_urls_lapse, publish
from tests.support.training_jobs import talks
from training.jobs.job import Submission
from training.jobs.jobs import Jobs
from transcripts.store import TranscriptStore

GONE, KEPT = "gone-4711-ann", "kept-0815-bob"


async def fill(
    database: Database, client: RegistryClient, home: Home, user: str, folder: Path, settings: dict[str, Any]
) -> None:
    """Put something of a user into every store that needs no training."""
    async with database.transaction() as session:
        await TranscriptStore(session).add("default", user, talks(user))
    version_id = await publish(client, folder, owner=Owner(tenant="default", user=user))
    async with database.transaction() as session:
        await ProfileRepository(session).add("default", a_profile(user, version_id=version_id, word=user))
    await fill_gateway(database, user, user)
    await fill_batches(database, client, BatchSettings(**settings), {user: version_id}, user)
    await Jobs(database).submit(Submission(tenant="default", user=user, base="smollm2-135m-instruct", why=user))
    (home.folder("datasets", "default", user, "abc") / "train.jsonl").write_text(user)


async def test_an_erasure_goes_on_after_a_kill_at_every_step(
    erasing: Erasing,
    database: Database,
    database_settings: DatabaseSettings,
    client: RegistryClient,
    registry_url: str,
    storage: ObjectStorage,
    storage_settings: StorageSettings,
    home: Home,
    tmp_path: Path,
) -> None:
    for user in (GONE, KEPT):
        await fill(database, client, home, user, tmp_path / user, storage_settings.model_dump(exclude={"log_level"}))
    await let_urls_lapse(database)
    options = {
        "database_url": database_settings.database_url,
        "registry_url": registry_url,
        "registry_token": TOKEN,
    }
    driver = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.erasure_driver", json.dumps(options), str(home.path), GONE),
        *(*STORES, "finish"),
        stderr=asyncio.subprocess.PIPE,
    )
    _, complaint = await driver.communicate()
    assert driver.returncode == 0, complaint.decode()
    report = await erasing.desk.report("default", GONE)
    assert report.state == "running"
    assert {each.state for each in report.stores} == {"done"}
    report = await erasing.until_done(await erasing.ask(GONE))
    assert store(report, "transcripts").found == {"transcripts": 12, "turns": 72}
    assert store(report, "adapters").found["versions"] == 1
    assert store(report, "trainings").found["jobs"] == 1
    assert [store(report, name).found for name in ("extractions", "answers", "usage")] == [
        {"batches": 1},
        {"answers": 1},
        {"days": 1},
    ]
    assert await in_database(database, [GONE]) == {}
    assert await in_objects(storage, [GONE]) == {}
    assert in_files(home.path, [GONE]) == {}
    kept = await in_database(database, [KEPT])
    assert {"public.turn", "public.adapter", "public.data_key", "public.profile", "public.training_job"} <= set(kept)
    assert await in_objects(storage, [KEPT])
    assert in_files(home.path, [KEPT])
