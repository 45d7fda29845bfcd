"""A registry service over real HTTP, in this process, on a test's own database and key prefix."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from pydantic import SecretStr

from kit.settings import DatabaseSettings, MasterKeySettings, StorageSettings
from registry.app import create_app
from registry.client import RegistryClient
from registry.errors import RegistryUnavailable
from registry.manifest import Owner
from registry.settings import RegistrySettings
from tests.support.adapters import BASE, BASE_CONFIG
from tests.support.ports import free_socket
from tests.support.waiting import until

TOKEN = "a-token-for-tests-only"
OWNER = Owner(tenant="default", user="ann")
_TURNS, _TURN_SECONDS = 20, 0.005


@asynccontextmanager
async def serving(app: FastAPI, *, port: int = 0, http: Any = "auto") -> AsyncIterator[str]:
    """Serve `app` and yield its URL; a test on the same loop talks to it through the kernel's sockets.

    `port` is for a service that comes back where it was; otherwise the kernel chooses. `http` is uvicorn's protocol.
    """
    listening = free_socket(port)
    server = _Server(uvicorn.Config(app, http=http, log_config=None, access_log=False, lifespan="on"))
    task = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started:
        if task.done():
            await task
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.asked_to_stop.set()
        await task
        listening.close()


class _Server(uvicorn.Server):
    """Stops as soon as it may: uvicorn waits in steps of a tenth of a second, and a test has up to four of them."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.asked_to_stop = asyncio.Event()

    async def main_loop(self) -> None:
        """Serve until asked to stop; meanwhile keep the date in the answers' headers right."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.asked_to_stop.wait(), 1.0)
            self.should_exit = self.asked_to_stop.is_set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Do without uvicorn's fixed pause when no request runs and every connection could be closed."""
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        for _ in range(_TURNS):
            if not (self.server_state.connections or self.server_state.tasks):
                return await self.lifespan.shutdown()
            await asyncio.sleep(_TURN_SECONDS)
        return await super().shutdown(sockets)


async def register_base_when_ready(client: RegistryClient) -> None:
    """Register the test's base model with a registry whose process has just been started."""

    async def is_registered() -> bool:
        try:
            await client.register_base(BASE, config=BASE_CONFIG)
        except RegistryUnavailable:
            return False
        return True

    await until(is_registered, within_seconds=60)


@pytest.fixture
def registry_settings(
    database_settings: DatabaseSettings, storage_settings: StorageSettings, master_key_settings: MasterKeySettings
) -> RegistrySettings:
    """The settings of this test's registry."""
    return RegistrySettings(
        **database_settings.model_dump(),
        **storage_settings.model_dump(exclude={"log_level"}),
        **master_key_settings.model_dump(exclude={"log_level"}),
        registry_token=SecretStr(TOKEN),
    )


@pytest.fixture
async def registry_url(registry_settings: RegistrySettings) -> AsyncIterator[str]:
    """Where this test's registry listens."""
    async with serving(create_app(registry_settings)) as url:
        yield url


@pytest.fixture
async def client(registry_url: str) -> AsyncIterator[RegistryClient]:
    """A client that has registered the test's base model."""
    async with RegistryClient(url=registry_url, token=TOKEN, actor="test") as client:
        await client.register_base(BASE, config=BASE_CONFIG)
        yield client
