"""Jobs whose trainings begin with an adapter that the tenant's users share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from registry.client import RegistryClient, draft_from_directory
from registry.manifest import LIVE, SHARED, AdapterRef, Owner
from tests.support.registry_server import TOKEN
from tests.support.training_jobs import Harbour
from training.base_models import identify_base
from training.errors import DatasetTooSmall
from training.jobs.states import State
from training.jobs.worker import Worker
from training.trainer import Trainer

Working = Callable[..., AbstractAsyncContextManager[Worker]]
COMMON = Owner.named(tenant="default", user=SHARED)


@pytest.fixture
async def registry(harbour: Harbour) -> AsyncIterator[RegistryClient]:
    async with RegistryClient(url=harbour.registry_url, token=TOKEN, actor="test") as client:
        yield client


async def train_common(harbour: Harbour, registry: RegistryClient, folder: Path, *, steps: int) -> Path:
    """Train an adapter for what people have in common, and return where its files are."""
    job = await harbour.until((await harbour.submit("everybody", steps=steps)).id)
    assert job.outcome is not None, job.error
    await registry.download(await registry.get_version(job.outcome["version_id"]), folder)
    return folder


async def share(harbour: Harbour, registry: RegistryClient, folder: Path) -> None:
    """Let the tenant's users share an adapter as `common`."""
    draft = draft_from_directory(folder, owner=COMMON, adapter="common", base=identify_base(harbour.base))
    version_id = (await registry.publish(folder, draft=draft)).version_id
    held = await registry.get_alias(COMMON, "common", LIVE)
    await registry.move_alias(COMMON, "common", LIVE, version_id=version_id, expected_version_id=held)


async def test_a_job_begins_with_the_version_that_was_live_when_it_was_taken(
    harbour: Harbour, working: Working, registry: RegistryClient, tmp_path: Path
) -> None:
    """Another one becomes live before it is trained: what it began with stands in its version's lineage and report."""
    for user in ("ann", "everybody"):
        await harbour.add_user(user)
    async with working():
        first, second = [await train_common(harbour, registry, tmp_path / f"{n}", steps=n) for n in (4, 5)]
    await share(harbour, registry, first)
    async with working("preparing", LORRY_TRAINING_TRAINS="false"):
        job = await harbour.submit("ann", settings={"start": "shared/common"})
        await harbour.until_event(job.id, "prepared")
    await share(harbour, registry, second)
    async with working():
        ended = await harbour.until(job.id)
    assert ended.outcome is not None, ended.error
    manifest = (await registry.get_version(ended.outcome["version_id"])).manifest
    assert manifest.lineage.hyperparameters["start"] == "shared/common@1"
    assert manifest.evaluation["held_out"]["start_loss"] is not None


async def test_a_job_whose_start_is_erased_meanwhile_fails_by_name_and_begins_anew_when_it_is_retried(
    harbour: Harbour, working: Working, registry: RegistryClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has of the start is gone whenever nothing is trained, though the failed job's folder is kept."""
    for user in ("ann", "everybody"):
        await harbour.add_user(user)
    seen: list[bool] = []

    def fail(*_: object, start: Path, **__: object) -> None:
        seen.append((start / "adapter_model.safetensors").is_file())
        raise DatasetTooSmall("a test has it so")

    async with working():
        first, second = [await train_common(harbour, registry, tmp_path / f"{n}", steps=n) for n in (4, 5)]
        await share(harbour, registry, first)
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "train", fail)
            job = await harbour.until((await harbour.submit("ann", settings={"start": "shared/common"})).id)
        assert (job.state, seen) == (State.FAILED, [True])
        left = harbour.leftovers(job.id)
        assert left
        assert not any(".start-" in str(path) for path in left)
        await share(harbour, registry, second)
        erased = await registry.resolve(AdapterRef(owner=COMMON, adapter="common", selector="1"))
        await registry.lifecycle.erase_version(erased.manifest.version_id, why="asked to", force=True)
        await harbour.jobs.retry(job.id)
        job = await harbour.until(job.id)
        assert (job.state, (job.error or {}).get("field")) == (State.FAILED, "start")
        await harbour.jobs.retry(job.id)
        job = await harbour.until(job.id)
    assert job.outcome is not None, job.error
    manifest = (await registry.get_version(job.outcome["version_id"])).manifest
    assert manifest.lineage.hyperparameters["start"] == "shared/common@2"


async def test_a_job_whose_start_nobody_has_fails_by_name(harbour: Harbour, working: Working) -> None:
    await harbour.add_user("ann")
    async with working():
        job = await harbour.until((await harbour.submit("ann", settings={"start": "shared/nothing"})).id)
    assert job.state is State.FAILED
    assert job.error is not None
    assert (job.error["code"], job.error["field"]) == ("config-invalid", "start")
