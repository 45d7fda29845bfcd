"""Fixtures of the gateway's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.support.clients import lorry
from tests.support.gateway_server import Gateway, engine_url, gateway, gateway_settings, stand_in, training_url
from tests.support.registry_server import client, registry_settings, registry_url

__all__ = [
    "client",
    "engine_url",
    "gateway",
    "gateway_settings",
    "http",
    "lorry",
    "registry_settings",
    "registry_url",
    "stand_in",
    "training_url",
]


@pytest.fixture
async def http(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    """A caller with the key of tenant `default`."""
    async with gateway.caller() as http:
        yield http
