"""One registry and one tiny base for the tests of trainings; workers run in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from kit.database import Database
from kit.settings import DatabaseSettings
from tests.support.nursery import Nursery
from tests.support.registry_server import registry_settings, registry_url
from tests.support.training_jobs import Harbour, make_tiny_base
from training.jobs.settings import WorkerSettings
from training.jobs.worker import Worker
from training.writers.settings import WriterSettings

__all__ = ["registry_settings", "registry_url"]


@pytest.fixture(scope="session")
def tiny_base(base_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of two layers with the real tokenizer."""
    return make_tiny_base(tmp_path_factory.mktemp("bases") / "tiny", tokenizer_of=base_directory)


@pytest.fixture
def harbour(
    database: Database,
    database_settings: DatabaseSettings,
    registry_url: str,
    tiny_base: Path,
    nursery: Nursery,
    tmp_path: Path,
) -> Harbour:
    """A queue without workers."""
    return Harbour(
        database_settings=database_settings,
        database=database,
        registry_url=registry_url,
        base=tiny_base,
        directory=tmp_path,
        nursery=nursery,
    )


@pytest.fixture
def working(harbour: Harbour) -> Callable[..., AbstractAsyncContextManager[Worker]]:
    """Run a worker in this process while the block runs; one that is slow here is no dead one."""

    @asynccontextmanager
    async def run(worker_id: str = "one", **changes: str) -> AsyncIterator[Worker]:
        environment = harbour.environment(worker_id, **{"LORRY_TRAINING_LEASE_SECONDS": "20", **changes})
        values = {name.removeprefix("LORRY_").lower(): value for name, value in environment.items()}
        worker = Worker(WorkerSettings.model_validate(values), writers=WriterSettings.model_validate(values))
        task = asyncio.create_task(worker.run())
        try:
            yield worker
        finally:
            worker.stop.set()
            await task

    return run
