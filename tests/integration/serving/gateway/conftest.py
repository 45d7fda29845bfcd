"""Fixtures of the gateway's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.support.gateway_server import Gateway, engine_url, gateway, gateway_settings, stand_in
from tests.support.registry_server import client, registry_settings, registry_url

__all__ = [
    "client",
    "engine_url",
    "gateway",
    "gateway_settings",
    "http",
    "registry_settings",
    "registry_url",
    "stand_in",
]


@pytest.fixture
async def http(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    """A caller with the key of tenant `default`."""
    headers = {"authorization": f"Bearer {gateway.key}"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=30, trust_env=False) as http:
        yield http
