"""Parts of the run's stack that these tests kill."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from lorry.local.stack import Stack
from tests.support.revival import Revivable


@pytest.fixture(scope="session")
async def registry(stack: Stack, engine: httpx.AsyncClient) -> AsyncIterator[Revivable]:
    """The run's registry process, to be killed and started again."""
    registry = Revivable(stack, "registry")
    yield registry
    await registry.stop()


@pytest.fixture(scope="session")
async def engine_process(stack: Stack, engine: httpx.AsyncClient, base_directory: Path) -> AsyncIterator[Revivable]:
    """The run's engine, to be killed and started again."""
    process = Revivable(stack, "engine", base_directory=base_directory)
    yield process
    await process.stop()
