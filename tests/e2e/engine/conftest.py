"""Four adapters of four users, published in the run's registry."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from registry.manifest import Manifest

TENANT = "tenant-nobody-may-read"
USERS = ("user-ada-secret", "user-bob-secret", "user-cleo-secret", "user-dan-secret")


@pytest.fixture(scope="session")
def adapter_directories(random_adapter: Callable[..., Path]) -> list[Path]:
    return [random_adapter(seed) for seed in range(1, len(USERS) + 1)]


@pytest.fixture(scope="session")
async def versions(adapter_directories: list[Path], publish: Callable[..., Awaitable[Manifest]]) -> list[str]:
    """The version ids of the four adapters, each of another user."""
    manifests = [
        await publish(directory, user=user, tenant=TENANT)
        for directory, user in zip(adapter_directories, USERS, strict=True)
    ]
    return [manifest.version_id for manifest in manifests]


@pytest.fixture(scope="session")
def private_names() -> list[str]:
    """What must never show in the engine's logs or metrics."""
    return [TENANT, *USERS]
