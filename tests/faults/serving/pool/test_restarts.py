"""Engines that are killed or restarted in the middle of it: they come back whole, from their own disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.support.folders import sized_under
from tests.support.pool_rig import Rig, meanwhile, rot
from tests.support.waiting import until

RandomAdapter = Callable[..., Path]


@pytest.fixture(scope="module")
async def known(rig: Rig, random_adapter: RandomAdapter) -> dict[str, str]:
    """Adapters that the engine has, and their answers."""
    versions = [(await rig.publish(random_adapter(seed, rank=8), user=f"known-{seed}")).version_id for seed in range(4)]
    return {version_id: await rig.text(version_id) for version_id in versions}


async def ask_until_refused(rig: Rig, version_id: str, statuses: list[int]) -> None:
    """Ask on until the engine no longer answers, noting every status."""
    try:
        while True:
            answer = await rig.ask(version_id, max_tokens=16, ignore_eos=True)
            statuses.append(answer.status_code)
            assert answer.status_code != 200 or answer.json()["usage"]["completion_tokens"] == 16
            if answer.status_code != 200:
                await asyncio.sleep(0.05)  # an engine that is stopping needs its time for that
    except httpx.TransportError:
        pass


async def test_an_engine_killed_with_a_half_written_cache_comes_back_whole(
    rig: Rig, known: dict[str, str], random_adapter: RandomAdapter
) -> None:
    manifest = await rig.publish(random_adapter(50), user="half-written")
    before = {version_id: rig.downloads(version_id) for version_id in known}
    rig.s3.hang(f"^GET .*{manifest.version_id}", at_bytes=5_000_000)
    seen: dict[str, list[int]] = {version_id: [] for version_id in (*known, "base", manifest.version_id)}
    *others, arriving = seen
    async with meanwhile(*(ask_until_refused(rig, version_id, seen[version_id]) for version_id in others)) as asking:
        await until(lambda: all(seen[version_id] for version_id in others), within_seconds=60)
        async with meanwhile(ask_until_refused(rig, arriving, seen[arriving])) as late:
            await until(lambda: any(arriving in str(path) for path in written(rig)))
            async with rig.engine.killed():
                await asyncio.gather(*asking, *late)
                rig.s3.heal()
    assert seen.pop(arriving) == []
    assert all(set(statuses) == {200} for statuses in seen.values()), seen

    assert not [path for path in written(rig) if ".staging" in str(path) and not path.name.endswith(".lock")]
    for version_id, text in known.items():
        assert await rig.text(version_id) == text
    assert {version_id: rig.downloads(version_id) for version_id in known} == before
    assert (await rig.ask(manifest.version_id)).status_code == 200
    assert await failed_loads(rig) == 0


async def failed_loads(rig: Rig) -> float:
    """How many loads failed since the engine started."""
    return (await rig.counters())["lorry_adapter_loads_total", frozenset({("outcome", "failed")})]


def written(rig: Rig) -> list[Path]:
    """Every file in the cache that has something in it."""
    return [path for path, size_bytes in sized_under(rig.cache).items() if size_bytes]


async def test_an_engine_that_is_restarted_under_load_serves_from_its_disk_again(
    rig: Rig, known: dict[str, str]
) -> None:
    before = {version_id: rig.downloads(version_id) for version_id in known}
    seen: dict[str, list[int]] = {version_id: [] for version_id in (*known, "base")}
    crowd = [ask_until_refused(rig, version_id, statuses) for version_id, statuses in seen.items() for _ in range(2)]
    async with meanwhile(*crowd) as asking:
        await until(lambda: all(seen.values()), within_seconds=60)
        async with rig.engine.stopped():
            await asyncio.gather(*asking)
    for statuses in seen.values():
        assert statuses[0] == 200
        assert set(statuses) <= {200, 503}, statuses  # answered to its end, or told to ask another
    assert [await rig.text(version_id) for version_id in known] == list(known.values())

    assert {version_id: rig.downloads(version_id) for version_id in known} == before
    assert await failed_loads(rig) == 0


@pytest.mark.parametrize(("damage", "counted"), [("truncated", "damaged"), ("bit flip", "damaged")])
async def test_what_rotted_on_disk_meanwhile_is_noticed_and_fetched_again_and_nobody_notices(
    rig: Rig, known: dict[str, str], damage: str, counted: str
) -> None:
    rotten, *sound = known
    before = {version_id: rig.downloads(version_id) for version_id in known}
    async with rig.engine.stopped():
        rot(rig.sealed(rotten), damage)
    texts = await asyncio.gather(*(rig.text(version_id) for version_id in known))

    assert texts == list(known.values())
    counters = await rig.counters()
    assert counters["lorry_adapter_evictions_total", frozenset({("tier", "disk"), ("reason", counted)})] == 1
    assert await failed_loads(rig) == 0
    assert rig.downloads(rotten) == before[rotten] + 1
    assert [rig.downloads(version_id) for version_id in sound] == [before[version_id] for version_id in sound]
