"""One fleet of two engines for this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.fleet import Fleet, open_fleet


@pytest.fixture(scope="session")
async def fleet(lasting_directory: Path, base_directory: Path) -> AsyncIterator[Fleet]:
    """Two real engines behind a real Envoy."""
    async with open_fleet(lasting_directory / "fleet", base_directory=base_directory) as fleet:
        yield fleet
