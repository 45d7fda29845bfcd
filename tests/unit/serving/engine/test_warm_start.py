"""What was used most comes back first, and only where there is room that nobody else uses."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from kit.errors import LorryError
from registry.errors import NotServable, RegistryUnavailable, VersionNotFound
from serving.engine.pool.admission import Ticket
from serving.engine.pool.erasure import Removal
from serving.engine.pool.limits import Limits
from serving.engine.pool.pool import AdapterPool
from serving.engine.pool.tier import Tier
from serving.engine.urgency import Urgency
from serving.engine.warm_start import Usage, WarmStart
from serving.errors import EngineDraining, TierFull

SIZE = 100


def version(number: int) -> str:
    return f"v{number:032x}"


class Memory:
    """A pool that has host memory and brings what it is asked for, or raises what it is told to."""

    def __init__(self, *, max_bytes: int = 10 * SIZE) -> None:
        self.host = Tier("host memory", max_bytes=max_bytes, max_entries=10)
        self.asked: list[str] = []
        self.errors: dict[str, LorryError] = {}

    async def prefetch(self, version_id: str, *, displace: bool) -> bool:
        assert not displace, "it may push something out"
        self.asked.append(version_id)
        if (error := self.errors.get(version_id)) is not None:
            raise error
        if self.host.leaving(version_id, SIZE):
            raise TierFull
        self.host.make_room(version_id, SIZE)
        return False


def used(directory: Path, counts: dict[int, int]) -> Usage:
    usage = Usage(directory)
    for number, count in counts.items():
        for _ in range(count):
            usage.note(version(number))
    return usage


def start(usage: Usage, memory: Memory, *, max_entries: int = 10) -> WarmStart:
    return WarmStart(usage, pool=memory, is_open=lambda: True, max_entries=max_entries)


async def test_what_was_used_survives_a_restart_and_the_most_used_comes_first(tmp_path: Path) -> None:
    await used(tmp_path, {1: 2, 2: 9, 3: 5}).save()
    memory = Memory()

    assert await start(Usage(tmp_path), memory).bring_back() == 3
    assert memory.asked == [version(2), version(3), version(1)]


async def test_the_file_says_versions_and_counts_and_nothing_else(tmp_path: Path) -> None:
    await used(tmp_path, {1: 2}).save()

    assert json.loads((tmp_path / ".usage.json").read_text()) == {"format": "lorry.usage/1", "uses": {version(1): 2.0}}
    assert [path.name for path in tmp_path.iterdir()] == [".usage.json"]
    assert (tmp_path / ".usage.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("max_entries", [0, 1, 2])
async def test_it_stops_where_host_memory_is_full(tmp_path: Path, max_entries: int) -> None:
    memory = Memory()
    await start(used(tmp_path, {1: 3, 2: 2, 3: 1}), memory, max_entries=max_entries).bring_back()

    assert memory.asked == [version(1), version(2), version(3)][:max_entries]


async def test_it_stops_where_the_bytes_would_not_fit(tmp_path: Path) -> None:
    memory = Memory(max_bytes=250)
    await start(used(tmp_path, {1: 3, 2: 2, 3: 1}), memory).bring_back()

    assert memory.asked == [version(1), version(2), version(3)]
    assert [entry.version_id for entry in memory.host.entries()] == [version(1), version(2)]


async def test_what_requests_brought_meanwhile_is_left_alone_and_counts(tmp_path: Path) -> None:
    memory = Memory()
    memory.host.make_room(version(1), SIZE)
    memory.host.make_room(version(9), SIZE)
    await start(used(tmp_path, {1: 3, 2: 2, 3: 1}), memory, max_entries=3).bring_back()

    assert memory.asked == [version(2)]


async def test_what_cannot_be_had_stops_nothing_and_what_is_withheld_is_forgotten(tmp_path: Path) -> None:
    memory = Memory()
    memory.errors = {version(1): NotServable(), version(2): RegistryUnavailable(), version(3): VersionNotFound()}
    usage = used(tmp_path, {1: 5, 2: 4, 3: 3, 4: 2})

    assert await start(usage, memory).bring_back() == 1
    assert usage.most_used() == [version(2), version(4)]


async def test_a_drain_ends_it(tmp_path: Path) -> None:
    memory = Memory()
    memory.errors = {version(1): EngineDraining()}
    await start(used(tmp_path, {1: 5, 2: 4}), memory).bring_back()

    assert memory.asked == [version(1)]


async def test_nothing_is_brought_before_the_directory_is_open_and_the_last_uses_are_kept(tmp_path: Path) -> None:
    is_open, memory = asyncio.Event(), Memory()
    usage = used(tmp_path, {1: 4})
    warm = WarmStart(usage, pool=memory, is_open=is_open.is_set, max_entries=9)
    async with warm.running():
        await asyncio.sleep(0.15)
        assert memory.asked == []
        is_open.set()
        async with asyncio.timeout(30):
            while not memory.asked:  # noqa: ASYNC110  # it tells nobody
                await asyncio.sleep(0.01)
        usage.note(version(2))

    assert set(Usage(tmp_path).most_used()) == {version(1), version(2)}


async def test_what_was_used_long_ago_fades_and_is_forgotten_at_last(tmp_path: Path) -> None:
    usage = used(tmp_path, {1: 8, 2: 1})
    for _ in range(3):
        usage.fade()
    usage.note(version(3))
    usage.note(version(3))

    assert usage.most_used() == [version(3), version(1), version(2)]
    for _ in range(20):
        usage.fade()
    assert usage.most_used() == []


async def test_an_erased_version_leaves_no_trace(tmp_path: Path) -> None:
    usage = used(tmp_path, {1: 8, 2: 1})
    await usage.save()
    usage.forget(version(1))
    await usage.save()

    assert version(1) not in (tmp_path / ".usage.json").read_text()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"[" * 200_000,
        b'{"format": "lorry.usage/2", "uses": {}}',
        b'{"format": "lorry.usage/1", "uses": []}',
        b'{"format": "lorry.usage/1", "uses": {"../../etc": 5, "v0": 1}}',
        b'{"format": "lorry.usage/1", "uses": {"v00000000000000000000000000000001": -1}}',
        b'{"format": "lorry.usage/1", "uses": {"v00000000000000000000000000000001": "many"}}',
        b" " * (2 << 20),
    ],
)
def test_a_file_that_makes_no_sense_is_as_good_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".usage.json").write_bytes(content)

    assert Usage(tmp_path).most_used() == []


async def test_a_million_versions_are_not_remembered(tmp_path: Path) -> None:
    usage = Usage(tmp_path)
    for _ in range(3):
        usage.note(version(0))
    for number in range(20_000):
        usage.note(version(number))
    await usage.save()

    assert len(Usage(tmp_path).most_used()) == 4096
    assert Usage(tmp_path).most_used()[0] == version(0)


async def test_a_disk_that_takes_nothing_costs_no_request(tmp_path: Path) -> None:
    usage = used(tmp_path, {1: 1})
    (tmp_path / ".usage.json").mkdir()
    await usage.save()

    assert usage.most_used() == [version(1)]


class Nothing:
    """A store that has every version but those that are refused, at once."""

    def at_hand(self, version_id: str) -> bool:
        return False

    async def install(self, version_id: str, *, urgent: Urgency) -> int:
        if version_id == version(404):
            raise VersionNotFound
        return 1

    async def stage(self, version_id: str, *, urgent: Urgency) -> int:
        return 1

    def abandon(self, version_id: str) -> None: ...

    async def drop(self, version_id: str) -> bool:
        return True

    async def erase(self, version_id: str) -> Removal:
        raise NotImplementedError


async def test_requests_that_may_run_are_uses_and_neither_refusals_nor_prefetches_are(tmp_path: Path) -> None:
    usage, host = Usage(tmp_path), Tier("host memory", max_bytes=100, max_entries=4)
    pool = AdapterPool(
        Nothing(),
        limits=Limits(slots=2),
        host=host,
        host_entries=4,
        host_live_entries=0,
        arrivals=2,
        on_used=usage.note,
    )
    for number in (1, 2, 2):
        (await pool.lease(Ticket(version_id=version(number)))).release()
    with pytest.raises(VersionNotFound):
        await pool.lease(Ticket(version_id=version(404)))
    await pool.prefetch(version(3))

    assert usage.most_used() == [version(2), version(1)]
