"""One registry and one tiny base for the tests that kill workers; each worker is a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.database import Database
from kit.settings import DatabaseSettings
from tests.support.nursery import Nursery
from tests.support.registry_server import registry_settings, registry_url
from tests.support.training_jobs import Harbour, make_tiny_base

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
) -> Iterator[Harbour]:
    """A queue without workers; those that a test starts are killed after it."""
    harbour = Harbour(
        database_settings=database_settings,
        database=database,
        registry_url=registry_url,
        base=tiny_base,
        directory=tmp_path,
        nursery=nursery,
    )
    yield harbour
    harbour.close()
