"""The engine's side of the directory against the real registry and a real PostgreSQL."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from kit.database import Database
from kit.errors import LorryError
from registry.app import create_app
from registry.client import RegistryClient
from registry.errors import NotServable
from registry.settings import RegistrySettings
from serving.engine.directory import Directory, waking_time
from serving.engine.installer import Installer
from serving.engine.metrics import EngineMetrics
from serving.engine.settings import EngineSettings
from serving.errors import EngineOutOfTouch, EngineReplaced
from tests.support.adapters import BASE
from tests.support.registry_server import TOKEN, registry_settings, serving
from tests.support.versions import add_version, execute, resume, set_state, suspend
from tests.support.waiting import until

__all__ = ["registry_settings"]
ENGINE_TOKEN = "a-token-for-engines-only"
HEARTBEAT_SECONDS = 0.1


class Memory:
    """Adapters that an engine would hold; vLLM's part is tested with vLLM."""

    def __init__(self) -> None:
        self.versions: set[str] = set()
        self.running: dict[str, int] = {}

    def named(self) -> set[str]:
        return self.versions

    def leases(self) -> dict[str, int]:
        return self.running

    async def withdraw(
        self, version_id: str, reason: LorryError, *, abort: bool, wait_seconds: float | None, because: str
    ) -> None:
        self.versions.discard(version_id)

    async def end_all(self, reason: LorryError) -> None:
        self.running = {}


class Engine:
    """One engine's directory, which beats until the test ends."""

    def __init__(self, url: str, cache: Path, *, lease_seconds: float = 60) -> None:
        self.memory, self.cache = Memory(), cache
        metrics = EngineMetrics(CollectorRegistry())
        installer = Installer(cache, metrics=metrics, lock_seconds=1)
        installer.open()
        settings = EngineSettings(
            base_directory=Path("/models/base"),
            engine_token="engine-token",
            registry_url=url,
            registry_engine_token=ENGINE_TOKEN,
            adapter_cache_directory=cache,
            engine_id="engine-1",
            heartbeat_seconds=HEARTBEAT_SECONDS,
            engine_lease_seconds=lease_seconds,
        )
        self.client = RegistryClient(url=url, token=ENGINE_TOKEN, actor="engine-1")
        self.directory = Directory(self.client, settings=settings, base=BASE, installer=installer, metrics=metrics)
        self.directory.connect(self.memory)
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._running = asyncio.create_task(self.directory.run())

    async def kill(self) -> None:
        """End without a word."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        await self.client.close()

    def on_disk(self, version_id: str) -> Path:
        (self.cache / version_id).mkdir()
        return self.cache / version_id

    async def until(self, version_id: str, refused_as: type[LorryError] | None, *, within_seconds: float = 30) -> float:
        """Wait until a version is refused in this way (None = let in); return the seconds it took."""
        began = time.monotonic()
        while True:
            try:
                self.directory.require(version_id)
                found = None
            except LorryError as exc:
                found = type(exc)
            if found is refused_as:
                return time.monotonic() - began
            assert time.monotonic() - began < within_seconds, f"still {found}"
            await asyncio.sleep(0.005)


@pytest.fixture
async def url(registry_settings: RegistrySettings) -> AsyncIterator[str]:
    settings = registry_settings.model_copy(update={"registry_engine_token": SecretStr(ENGINE_TOKEN)})
    async with serving(create_app(settings)) as url:
        yield url


@pytest.fixture
async def engine(url: str, tmp_path: Path) -> AsyncIterator[Engine]:
    engine = Engine(url, tmp_path / "cache")
    yield engine
    await engine.kill()


@pytest.fixture
async def operator(url: str) -> AsyncIterator[RegistryClient]:
    async with RegistryClient(url=url, token=TOKEN) as client:
        yield client


async def test_a_suspension_reaches_the_engine_within_a_heartbeat_and_a_call(
    engine: Engine, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, bob = await add_version(database), await add_version(database, user="bob")
    engine.memory.versions = {ada, bob}
    begun, beat = 0, engine.directory.beat

    async def counted() -> None:
        nonlocal begun
        begun += 1
        await beat()

    monkeypatch.setattr(engine.directory, "beat", counted)
    engine.start()
    await engine.until(ada, None)
    for _ in range(5):
        await suspend(database, user="ann")
        before = begun
        await engine.until(ada, NotServable)
        assert begun - before <= 2, "the one that was under way, and the next"
        engine.directory.require(bob)
        await resume(database, user="ann")
        await engine.until(ada, None)
        engine.memory.versions.add(ada)


async def test_the_directory_shows_what_the_engine_holds_and_runs(
    engine: Engine, operator: RegistryClient, database: Database
) -> None:
    on_disk, in_memory = await add_version(database), await add_version(database, user="bob")
    engine.on_disk(on_disk)
    engine.start()
    await engine.until(on_disk, None)
    engine.memory.versions, engine.memory.running = {in_memory}, {in_memory: 3}

    async def is_told() -> bool:
        return [each.leases for each in (await operator.engines.list()).engines] == [3]

    await until(is_told)
    (found,) = (await operator.engines.list()).engines
    assert (found.state, found.held, found.leases) == ("alive", {"disk": 1, "host": 1, "device": 0}, 3)
    ((tier, leases),) = [(each.tier, each.leases) for each in await operator.engines.holders(in_memory)]
    assert (tier, leases) == ("host", 3)


async def test_an_engine_that_was_away_deletes_what_was_erased_before_it_lets_anything_in(
    engine: Engine, database: Database
) -> None:
    erased, kept = await add_version(database), await add_version(database, user="bob")
    gone, there = engine.on_disk(erased), engine.on_disk(kept)
    await set_state(database, erased, "erased")
    engine.start()
    while engine.directory.closed_because() is not None:
        assert there.exists()
        await asyncio.sleep(0.001)
    assert (gone.exists(), there.exists()) == (False, True)
    engine.directory.require(kept)
    with pytest.raises(NotServable):
        engine.directory.require(erased)


async def test_an_erased_version_leaves_the_directory_once_it_is_deleted(
    engine: Engine, operator: RegistryClient, database: Database
) -> None:
    version_id = await add_version(database)
    files = engine.on_disk(version_id)
    engine.start()
    await engine.until(version_id, None)
    await set_state(database, version_id, "erased")
    await engine.until(version_id, NotServable)
    await until(lambda: not files.exists())

    async def is_told() -> bool:
        return await operator.engines.holders(version_id) == ()

    await until(is_told)


async def test_a_registry_that_is_gone_for_longer_than_the_lease_closes_the_engine_and_its_return_opens_it(
    registry_settings: RegistrySettings, database: Database, tmp_path: Path
) -> None:
    settings = registry_settings.model_copy(update={"registry_engine_token": SecretStr(ENGINE_TOKEN)})
    version_id = await add_version(database)
    async with serving(create_app(settings)) as url:
        engine = Engine(url, tmp_path / "cache", lease_seconds=5)
        engine.memory.versions = {version_id}
        engine.start()
        await engine.until(version_id, None)
        heard = waking_time()
    gone, directory = waking_time(), engine.directory
    try:
        port = int(url.rsplit(":", 1)[1])
        await engine.until(version_id, EngineOutOfTouch)
        assert waking_time() - heard > 3
        assert directory._deadline is not None
        assert directory._deadline <= gone + 5, "by its own clock, however late this test looks"
        async with serving(create_app(settings), port=port):
            await engine.until(version_id, None)
    finally:
        await engine.kill()


async def test_a_database_that_lost_the_engine_has_it_back_with_the_next_heartbeat(
    engine: Engine, operator: RegistryClient, database: Database
) -> None:
    version_id = await add_version(database)
    engine.memory.versions = {version_id}
    engine.start()
    await engine.until(version_id, None)
    await execute(database, "delete from engine")
    while not (await operator.engines.list()).engines:
        engine.directory.require(version_id)
        await asyncio.sleep(0.01)
    assert [each.engine_id for each in await operator.engines.holders(version_id)] == ["engine-1"]


async def test_of_two_engines_with_one_name_the_living_one_keeps_it(
    engine: Engine, url: str, database: Database, tmp_path: Path
) -> None:
    version_id = "v" + "a" * 32
    engine.start()
    await engine.until(version_id, None)
    newcomer = Engine(url, tmp_path / "other")
    newcomer.start()
    await newcomer.until(version_id, EngineReplaced)
    engine.directory.require(version_id)
    await engine.kill()
    await execute(database, "update engine set last_seen_at = now() - interval '61 seconds'")
    await newcomer.until(version_id, None)  # by itself, once the place is free
    await newcomer.kill()


async def test_an_engine_that_was_killed_comes_back_at_once_on_the_same_disk(
    engine: Engine, url: str, operator: RegistryClient
) -> None:
    version_id = "v" + "a" * 32
    engine.start()
    await engine.until(version_id, None)
    await engine.kill()
    assert (await operator.engines.get("engine-1")).state == "alive"  # as far as the registry knows
    again = Engine(url, engine.cache)
    again.start()
    await again.until(version_id, None)
    await again.kill()


async def test_the_databases_clock_decides_who_has_lapsed(
    engine: Engine, operator: RegistryClient, database: Database
) -> None:
    engine.start()
    await engine.until("v" + "a" * 32, None)
    await engine.kill()
    await execute(database, "update engine set last_seen_at = now() - interval '45 seconds'")
    assert (await operator.engines.get("engine-1")).state == "alive"
    await execute(database, "update engine set last_seen_at = now() - interval '61 seconds'")
    assert (await operator.engines.get("engine-1")).state == "lapsed"
