"""A batch in the midst of a campaign: everybody is asked of the engine of their version's base."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from registry.client import RegistryClient
from serving.gateway.settings import GatewaySettings
from tests.support.adapters import BASE, BASE_CONFIG, NEXT_BASE
from tests.support.extraction_jobs import Engine, Mill
from tests.support.registry_server import serving

NOBODYS = BASE.model_copy(update={"id": "test/nobodys", "weights_sha256": "6" * 64})


@pytest.fixture
async def next_engine() -> AsyncIterator[Engine]:
    """The engine of the base that users are moved to; nothing waits for it when the test is over."""
    engine = Engine()
    try:
        yield engine
    finally:
        engine.open.set()


@pytest.fixture
async def next_url(next_engine: Engine) -> AsyncIterator[str]:
    """Where it listens."""
    async with serving(next_engine.app()) as url:
        yield url


@pytest.fixture
def gateway_settings(gateway_settings: GatewaySettings, next_url: str) -> GatewaySettings:
    """A gateway, and workers, that know an engine of another base beside their default one."""
    return gateway_settings.model_copy(update={"base_engine_urls": {NEXT_BASE.id: next_url}})


@pytest.fixture(autouse=True)
async def _bases(client: RegistryClient) -> None:
    for base in (NEXT_BASE, NOBODYS):
        await client.register_base(base, config=BASE_CONFIG)


async def test_everybody_is_asked_of_the_engine_of_their_base(
    mill: Mill, stand_in: Engine, next_engine: Engine
) -> None:
    await mill.add_users("ann", "bob")
    await mill.add_users("cy", "dee", base=NEXT_BASE)
    batch = await mill.submit()
    async with mill.working(extraction_users_at_once=1):  # the others are hinted at
        ended = await mill.until_ended(batch.id)
    assert (ended.progress.done, ended.progress.failed) == (4, 0)
    versions = mill.versions
    assert set(stand_in.asked) == {versions["ann"], versions["bob"]}
    assert set(next_engine.asked) == {versions["cy"], versions["dee"]}
    assert {each for each, _ in stand_in.hints} <= set(stand_in.asked)
    assert {each for each, _ in next_engine.hints} <= set(next_engine.asked)
    assert stand_in.hints or next_engine.hints


@pytest.mark.parametrize("away", ["default", "other"])
async def test_an_engine_that_is_away_is_waited_for_by_the_users_of_its_base_alone(
    mill: Mill, stand_in: Engine, next_engine: Engine, away: str
) -> None:
    await mill.add_users("ann", "bob", "cy")
    await mill.add_users("dee", "eve", "fay", base=NEXT_BASE)
    silent = stand_in if away == "default" else next_engine
    silent.is_down = True
    batch = await mill.submit()
    async with mill.working(extraction_attempts=1, extraction_users_at_once=1) as worker:

        async def three_are_done() -> bool:
            return (await mill.get(batch.id)).progress.done == 3

        await mill.until(three_are_done, what="those whose engine answers")

        async def is_known_to_be_away() -> bool:
            shown = (await worker.metrics.render(mill.database)).decode()
            assert shown.count("lorry_extraction_engine_up{") == 2
            return f'lorry_extraction_engine_up{{engine="{away}"}} 0.0' in shown

        await mill.until(is_known_to_be_away, what="that somebody asked the engine that is away")
        assert len(silent.asked) == 1, "nobody is sent to it before it answers its health check"
        silent.is_down = False
        ended = await mill.until_ended(batch.id)
        assert 'lorry_extraction_engine_up{engine="other"} 1.0' in (await worker.metrics.render(mill.database)).decode()
    assert (ended.progress.done, ended.progress.failed) == (6, 0)


async def test_a_user_whose_base_nobody_serves_fails_with_that_reason_and_the_others_do_not(
    mill: Mill, stand_in: Engine
) -> None:
    await mill.add_users("ann")
    await mill.add_users("bob", base=NOBODYS)
    stand_in.serves = lambda model: model != mill.versions["bob"]
    batch = await mill.submit("ann", "bob")
    async with mill.working(extraction_attempts=2):
        ended = await mill.until_ended(batch.id)
    assert (ended.progress.done, ended.failures) == (1, {"base-without-engine": 1})
    assert stand_in.misled == 2 * [mill.versions["bob"]]
