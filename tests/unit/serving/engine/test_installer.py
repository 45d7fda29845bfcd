"""The disk tier: what is there is whole, bounded, private, and shared with processes that are as careful."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from serving.engine.file_lock import locked
from serving.engine.installer import SEALED_FILE, Installer
from serving.engine.metrics import EngineMetrics
from serving.errors import CacheBusy, CacheFull, MachineRefused
from tests.support.folders import sized_under

ROOM = 3000
DATA = b"sealed..." * 100


def version(number: int) -> str:
    return f"v{number:032x}"


class Cache:
    """An installer, as one process has it, and what it measured."""

    def __init__(self, directory: Path, *, max_bytes: int = ROOM) -> None:
        self.directory, self.measures = directory, CollectorRegistry()
        self.installer = Installer(
            directory, metrics=EngineMetrics(self.measures), lock_seconds=0.2, max_bytes=max_bytes
        )
        self.installer.open()

    async def put(self, number: int, data: bytes = DATA) -> None:
        async with self.installer.shelf(version(number)) as shelf, shelf.arrival(len(data)) as path:
            path.write_bytes(data)

    async def find(self, number: int, size_bytes: int = len(DATA)) -> Path | None:
        async with self.installer.shelf(version(number)) as shelf:
            return await shelf.find(size_bytes)

    def held(self) -> list[int]:
        """The versions on disk, and that the books say the same."""
        on_disk = sorted(int(name[1:], 16) for name in self.installer.installed())
        assert sorted(int(entry.version_id[1:], 16) for entry in self.installer.usage()) == on_disk
        return on_disk

    def evicted(self, reason: str) -> float | None:
        labels = {"tier": "disk", "reason": reason}
        return self.measures.get_sample_value("lorry_adapter_evictions_total", labels)

    def staged(self) -> list[str]:
        return sorted(os.listdir(self.directory / ".staging"))


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


async def test_what_arrives_is_kept_under_the_versions_name(cache: Cache) -> None:
    await cache.put(1)

    path = await cache.find(1)
    assert path == cache.directory / version(1) / SEALED_FILE
    assert path.read_bytes() == DATA
    assert cache.staged() == []
    assert [(entry.version_id, entry.size_bytes) for entry in cache.installer.usage()] == [(version(1), len(DATA))]


async def test_what_fails_to_arrive_leaves_nothing_and_takes_no_room(cache: Cache) -> None:
    async def break_off() -> None:
        async with cache.installer.shelf(version(1)) as shelf, shelf.arrival(ROOM) as path:
            path.write_bytes(b"half")
            raise RuntimeError("broke off")

    with pytest.raises(RuntimeError, match="broke off"):
        await break_off()

    assert (cache.held(), cache.staged()) == ([], [])
    await cache.put(2, b"x" * ROOM)
    assert cache.held() == [2]


async def test_the_least_recently_used_makes_room(cache: Cache) -> None:
    for number in (1, 2, 3):
        await cache.put(number)
    await cache.find(1)
    await cache.put(4)

    assert cache.held() == [1, 3, 4]
    assert cache.evicted("room") == 1


async def test_as_many_leave_as_one_large_adapter_takes(cache: Cache) -> None:
    for number in (1, 2, 3):
        await cache.put(number)
    await cache.put(4, b"x" * 2500)

    assert cache.held() == [4]
    assert cache.evicted("room") == 3


async def test_what_is_larger_than_the_cache_is_refused_and_nothing_leaves(cache: Cache) -> None:
    await cache.put(1)
    with pytest.raises(CacheFull, match="no room"):
        await cache.put(2, b"x" * (ROOM + 1))

    assert (cache.held(), cache.staged()) == ([1], [])


async def test_what_is_held_stays(cache: Cache) -> None:
    for number in (1, 2, 3):
        await cache.put(number)
    async with cache.installer.shelf(version(1)):
        await cache.put(4)
        assert cache.held() == [1, 3, 4]


def taken_bytes(directory: Path) -> int:
    return sum(size for path, size in sized_under(directory).items() if path.name == SEALED_FILE)


async def test_concurrent_arrivals_keep_the_bound_at_every_moment(cache: Cache) -> None:
    async def arrive(number: int) -> None:
        async with cache.installer.shelf(version(number)) as shelf, shelf.arrival(len(DATA)) as path:
            await asyncio.sleep(0.01)
            path.write_bytes(DATA)
            assert taken_bytes(cache.directory) <= ROOM

    for begin in range(0, 12, 3):
        await asyncio.gather(*(arrive(number) for number in range(begin, begin + 3)))

    assert len(cache.held()) == 3


async def test_a_restart_adopts_what_is_there_in_the_order_of_its_use(tmp_path: Path) -> None:
    before = Cache(tmp_path)
    for number in (1, 2, 3):
        await before.put(number)
        os.utime(tmp_path / version(number) / SEALED_FILE, (number, number))
    await before.find(1)
    after = Cache(tmp_path)
    await after.put(4)

    assert after.held() == [1, 3, 4]


async def test_a_restart_with_a_smaller_bound_keeps_what_was_used_last(tmp_path: Path) -> None:
    before = Cache(tmp_path)
    for number in (1, 2, 3):
        await before.put(number)
        os.utime(tmp_path / version(number) / SEALED_FILE, (number, number))

    after = Cache(tmp_path, max_bytes=1000)
    assert after.held() == [3]
    assert after.evicted("room") == 2


async def test_what_an_earlier_release_kept_in_plain_is_removed_at_the_start(tmp_path: Path) -> None:
    plain = tmp_path / version(1)
    plain.mkdir()
    (plain / "adapter_config.json").write_text("{}")
    (plain / "adapter_model.safetensors").write_bytes(b"weights")

    assert Cache(tmp_path).held() == []
    assert list(tmp_path.rglob("adapter_*")) == []


@pytest.mark.parametrize("damage", ["truncated", "longer", "missing", "gone", "link", "linked directory"])
async def test_what_is_no_such_file_is_not_found_and_goes(
    cache: Cache, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    await cache.put(1)
    path = cache.directory / version(1) / SEALED_FILE
    elsewhere = tmp_path / "elsewhere"
    if damage == "truncated":
        path.write_bytes(DATA[:-1])
    elif damage == "longer":
        path.write_bytes(DATA + b"x")
    elif damage == "missing":
        path.unlink()
    elif damage == "gone":
        shutil.rmtree(path.parent)
    elif damage == "link":
        path.rename(elsewhere)
        path.symlink_to(elsewhere)
    else:
        path.parent.rename(elsewhere)
        path.parent.symlink_to(elsewhere)

    assert await cache.find(1) is None
    is_lost = damage in ("missing", "gone")  # else somebody should look at the disk
    assert (cache.held(), cache.evicted("lost"), cache.evicted("damaged")) == ([], is_lost, not is_lost)
    assert (version(1) in caplog.text) is not is_lost
    await cache.put(1)
    assert await cache.find(1) == path
    if "link" in damage:
        assert elsewhere.exists()  # what a link names is not ours


async def test_what_is_damaged_is_counted_and_goes(cache: Cache) -> None:
    await cache.put(1)
    async with cache.installer.shelf(version(1)) as shelf:
        await shelf.discard()

    assert (cache.held(), cache.evicted("damaged")) == ([], 1)


async def test_removing_returns_the_bytes_and_forgets_the_key(cache: Cache) -> None:
    forgotten: list[str] = []
    gone: list[str] = []
    cache.installer.on_removed(forgotten.append)
    cache.installer.on_gone(gone.append)
    await cache.put(1)

    assert await cache.installer.remove(version(1)) == len(DATA)
    assert gone == forgotten == [version(1)]
    assert await cache.installer.remove(version(1), reason="asked") == 0
    assert forgotten == [version(1)] * 2
    assert (cache.held(), cache.staged()) == ([], [])
    assert (cache.evicted("erased"), cache.evicted("asked")) == (1, 0)


async def test_what_leaves_for_room_is_gone_and_was_not_removed_for_good(cache: Cache) -> None:
    gone: list[str] = []
    cache.installer.on_removed(lambda _: pytest.fail("nobody removed anything"))
    cache.installer.on_gone(gone.append)
    for number in range(1, 6):
        await cache.put(number)

    assert (gone, cache.held()) == ([version(1), version(2)], [3, 4, 5])


async def test_a_disk_that_does_not_let_go_of_a_file_says_so(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    await cache.put(1)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(OSError(errno.EROFS, "Read-only file system")))
        with pytest.raises(MachineRefused, match="Read-only file system"):
            await cache.installer.remove(version(1))

    assert cache.held() == [1]


async def test_what_a_dead_process_left_half_written_is_removed_at_the_next_start(tmp_path: Path) -> None:
    Cache(tmp_path)
    half = tmp_path / ".staging" / version(1)
    half.mkdir()
    (half / SEALED_FILE).write_bytes(b"sea")
    half.with_name(f"{half.name}.lock").touch()

    assert Cache(tmp_path).staged() == []


async def test_what_a_process_left_that_died_meanwhile_takes_no_room(cache: Cache) -> None:
    half = cache.directory / ".staging" / version(9)
    half.mkdir()
    (half / SEALED_FILE).write_bytes(b"x" * ROOM)
    await cache.put(1)

    assert (cache.held(), cache.staged()) == ([1], [])


async def test_what_a_living_process_is_writing_is_left_alone(tmp_path: Path) -> None:
    Cache(tmp_path)
    half = tmp_path / ".staging" / version(1)
    half.mkdir()
    async with locked(half.with_name(f"{half.name}.lock"), timeout_seconds=1):
        cache = Cache(tmp_path)
        assert half.is_dir()
        with pytest.raises(CacheBusy):
            await cache.put(1)
        with pytest.raises(CacheBusy):
            await cache.installer.remove(version(1))


async def test_two_processes_keep_one_bound(tmp_path: Path) -> None:
    """Two installers on one directory have nothing in common but the disk, like two engines of one host."""
    first, second = Cache(tmp_path), Cache(tmp_path)
    for number in range(1, 7):
        await (first if number % 2 else second).put(number)
        assert taken_bytes(tmp_path) <= ROOM

    assert first.installer.installed() == second.installer.installed()
    assert len(first.installer.installed()) == 3
    async with second.installer.shelf(version(7)) as shelf, shelf.arrival(ROOM - len(DATA)):
        await first.put(8)  # beside what the other is just writing
        with pytest.raises(CacheFull):
            await first.put(9, DATA * 2)
    assert sorted(first.installer.installed()) == [version(7), version(8)]


async def test_what_another_process_has_locked_is_not_deleted(tmp_path: Path) -> None:
    first, second = Cache(tmp_path), Cache(tmp_path)
    for number in (1, 2, 3):
        await first.put(number)
    async with second.installer.shelf(version(1)) as shelf:
        path = await shelf.find(len(DATA))
        await first.put(4)
        assert path is not None
        assert path.read_bytes() == DATA
    assert sorted(first.installer.installed()) == [version(1), version(3), version(4)]


async def test_what_another_process_deleted_is_forgotten(tmp_path: Path) -> None:
    first, second = Cache(tmp_path), Cache(tmp_path)
    await first.put(1)
    await second.installer.remove(version(1))
    await first.put(2)

    assert first.held() == [2]


async def test_a_disk_without_room_is_refused_before_the_download(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(CacheFull, match="1000 bytes free; this adapter needs"):
        await cache.put(1)

    assert (cache.held(), cache.staged()) == ([], [])


async def test_a_disk_that_others_filled_gets_room_from_what_was_used_least(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        await cache.put(number)
    spare, disk_bytes, real = 16 << 20, (16 << 20) + 2000, shutil.disk_usage("/")

    def usage(_: object) -> object:
        taken = taken_bytes(cache.directory)
        return real._replace(free=disk_bytes - taken)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    await cache.put(3)  # the bound would hold all three, the disk does not
    assert (cache.held(), cache.evicted("room")) == ([2, 3], 1)
    disk_bytes = spare + 100
    with pytest.raises(CacheFull, match="bytes free"):
        await cache.put(4)
    assert cache.held() == [2, 3]


async def test_what_is_still_to_be_written_of_an_arrival_is_not_free(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cache.put(1)
    disk_bytes, real = (16 << 20) + 2 * len(DATA) + 200, shutil.disk_usage("/")

    def usage(_: object) -> object:
        written = [path for path in sized_under(cache.directory) if path.stat().st_blocks]
        return real._replace(free=disk_bytes - sum(path.stat().st_size for path in written))

    monkeypatch.setattr(shutil, "disk_usage", usage)
    async with cache.installer.shelf(version(2)) as shelf, shelf.arrival(len(DATA)) as path:
        await cache.put(3)  # for which there would be room if nothing more were written of the other
        path.write_bytes(DATA)
    assert (cache.held(), cache.evicted("room")) == ([2, 3], 1)


async def test_a_disk_that_fills_during_the_download_is_named_and_leaves_nothing(cache: Cache) -> None:
    with pytest.raises(CacheFull, match="no room"):
        async with cache.installer.shelf(version(1)) as shelf, shelf.arrival(100):
            raise OSError(errno.ENOSPC, "No space left on device")

    assert (cache.held(), cache.staged()) == ([], [])
    await cache.put(1)


async def test_the_cache_is_private_to_its_user(cache: Cache) -> None:
    await cache.put(1)

    modes = {path.name: path.stat().st_mode & 0o777 for path in (cache.directory, cache.directory / version(1))}
    assert set(modes.values()) == {0o700}
    assert (cache.directory / version(1) / SEALED_FILE).stat().st_mode & 0o777 == 0o600
