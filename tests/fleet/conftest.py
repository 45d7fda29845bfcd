"""One fleet of two engines for this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.fleet import Fleet, open_fleet

PATIENT = {"LORRY_REGISTRY_TIMEOUT_SECONDS": "20"}  # while one engine starts, everything else on two cores is slow


@pytest.fixture(scope="session")
async def fleet(lasting_directory: Path, base_directory: Path) -> AsyncIterator[Fleet]:
    """Two real engines behind a real Envoy."""
    async with open_fleet(lasting_directory / "fleet", base_directory=base_directory, engine=PATIENT) as fleet:
        yield fleet
