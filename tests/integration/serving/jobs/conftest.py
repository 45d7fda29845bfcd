"""A gateway, a registry, an engine that does as it is told, and a queue; workers run in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.support.clients import lorry
from tests.support.extraction_jobs import (
    batch_settings,
    client,
    engine_url,
    gateway,
    gateway_settings,
    mill,
    registry_settings,
    registry_url,
    stand_in,
)
from tests.support.gateway_server import Gateway

__all__ = [
    "batch_settings",
    "client",
    "engine_url",
    "gateway",
    "gateway_settings",
    "http",
    "lorry",
    "mill",
    "registry_settings",
    "registry_url",
    "stand_in",
]


@pytest.fixture
async def http(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    """A caller with the key of tenant `default`."""
    async with gateway.caller() as http:
        yield http
