"""One registry and one engine for each module of this folder, which says in `RIG` what is special about them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kit.settings import StorageSettings
from tests.support.pool_rig import Rig, pool_rig


@pytest.fixture(scope="module")
async def rig(
    request: pytest.FixtureRequest,
    lasting_directory: Path,
    postgres_directory: Path,
    seaweed_settings: StorageSettings,
    base_directory: Path,
) -> AsyncIterator[Rig]:
    """The module's registry and engine."""
    special: dict[str, Any] = {"engine": {}} | getattr(request.module, "RIG", {})
    async with pool_rig(
        directory=lasting_directory / request.path.stem.removeprefix("test_"),
        postgres_directory=postgres_directory,
        storage=seaweed_settings,
        base_directory=base_directory,
        **special,
    ) as rig:
        yield rig
