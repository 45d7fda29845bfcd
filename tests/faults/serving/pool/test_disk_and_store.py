"""A disk that is full and an object store that breaks off: who asked is told, nobody else notices, nothing is left."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from registry.manifest import Manifest
from tests.support.pool_rig import Rig, meanwhile
from tests.support.waiting import until

# The engine sees a disk of its own in place of its cache: small, and gone with it.
_DISK_MIB = 256
_MOUNT = f'mount -t tmpfs -o size={_DISK_MIB}m,mode=0700 lorry "$LORRY_ADAPTER_CACHE_DIRECTORY" && exec "$@"'
_OWN_MOUNTS = ("unshare", "--user", "--map-root-user", "--mount")
RIG = {
    "wrapper": (*_OWN_MOUNTS, "sh", "-c", _MOUNT, "sh"),
    "engine": {
        "LORRY_REGISTRY_TIMEOUT_SECONDS": "6",  # how long the store may be silent
        # Whoever asks hears how their load ended: one that went on behind them would be counted in the next test.
        "LORRY_LIVE_DEADLINE_SECONDS": "300",
    },
}
RandomAdapter = Callable[..., Path]

pytestmark = pytest.mark.skipif(
    subprocess.run([*_OWN_MOUNTS, "true"], capture_output=True, check=False).returncode != 0,
    reason="this machine lets nobody mount a small disk",
)


@pytest.fixture(scope="module", autouse=True)
async def _others(rig: Rig, random_adapter: RandomAdapter) -> None:
    """Two users whom nothing here may disturb."""
    versions = [(await rig.publish(random_adapter(seed, rank=4), user=f"other-{seed}")).version_id for seed in (1, 2)]
    await rig.meet(*versions)


@contextmanager
def full_disk(rig: Rig, *, free_bytes: int) -> Iterator[None]:
    """Fill the engine's disk but for so many bytes."""
    filler = rig.cache / "filler"
    with filler.open("wb") as file:
        for _ in range(50):
            disk = os.statvfs(rig.cache)
            try:
                os.posix_fallocate(file.fileno(), 0, disk.f_bavail * disk.f_bsize - free_bytes)
                break
            except OSError as exc:  # what the engine was about to write has come meanwhile
                if exc.errno != errno.ENOSPC:
                    raise
                file.truncate(0)
        else:
            raise AssertionError("the disk was never filled")
    try:
        yield
    finally:
        filler.unlink()


def used_bytes(rig: Rig) -> int:
    disk = os.statvfs(rig.cache)
    return (disk.f_blocks - disk.f_bfree) * disk.f_bsize


async def mended(rig: Rig, manifest: Manifest) -> None:
    """What could not be had can be had again."""
    await rig.forget_refusals()
    async with rig.others(answers=1), rig.counted() as happened:
        assert (await rig.ask(manifest.version_id)).status_code == 200
    assert (happened.loads, happened.failures) == ({"loaded": 1}, {})


async def test_a_full_disk_refuses_what_is_new_and_serves_what_is_there(
    rig: Rig, random_adapter: RandomAdapter
) -> None:
    manifest = await rig.publish(random_adapter(10), user="too-late")
    with full_disk(rig, free_bytes=1 << 20):
        async with rig.others(), rig.counted() as happened:
            answer = await rig.ask(manifest.version_id)
        assert (answer.status_code, "disk" in answer.json()["error"]["message"]) == (503, True), answer.text
        assert (happened.failures, happened.loads) == ({"disk_full": 1}, {"failed": 1})
        assert happened.refusals == {"disk_full": 1}
        assert rig.downloads(manifest.version_id) == 0
    await mended(rig, manifest)


async def test_a_disk_that_fills_up_while_an_adapter_arrives_keeps_nothing_of_it(
    rig: Rig, random_adapter: RandomAdapter
) -> None:
    manifest = await rig.publish(random_adapter(11), user="in-between")
    before = used_bytes(rig)
    rig.s3.slow(f"^GET .*{manifest.version_id}", bytes_per_second=1e6)
    async with rig.others(), rig.counted() as happened:
        asking = asyncio.create_task(rig.ask(manifest.version_id))
        await until(lambda: used_bytes(rig) > before + (2 << 20))
        with full_disk(rig, free_bytes=1 << 20):
            answer = await asking
    rig.s3.heal()

    assert (answer.status_code, "disk" in answer.json()["error"]["message"]) == (503, True), answer.text
    assert (happened.failures, happened.loads) == ({"disk_full": 1}, {"failed": 1})
    assert used_bytes(rig) <= before + 65536
    await mended(rig, manifest)


@pytest.mark.parametrize("fault", ["cut", "hanging", "refused", "overloaded", "flipped on the way"])
async def test_a_download_that_breaks_off_fails_alone_and_leaves_nothing(
    rig: Rig, random_adapter: RandomAdapter, fault: str
) -> None:
    manifest = await rig.publish(random_adapter(12, rank=8), user=f"cut-{fault.replace(' ', '-')}")
    before, pattern = used_bytes(rig), f"^GET .*{manifest.version_id}"
    match fault:
        case "cut":
            rig.s3.truncate(pattern, at_bytes=3_000_000)
        case "hanging":
            rig.s3.hang(pattern, at_bytes=3_000_000)
        case "refused":
            rig.s3.refuse(pattern)
        case "overloaded":
            rig.s3.answer(pattern, status=503)
        case _:
            rig.s3.corrupt(pattern, at_bytes=3_000_000)
    async with rig.others(), rig.counted() as happened:
        answers = await asyncio.gather(*(rig.ask(manifest.version_id) for _ in range(5)))
    rig.s3.heal()

    status, reason = (502, "damaged") if fault == "flipped on the way" else (503, "store_unavailable")
    assert {answer.status_code for answer in answers} == {status}, answers[0].text
    assert (happened.failures, happened.loads) == ({reason: 1}, {"failed": 1})
    assert happened.refusals == {reason: 5}
    assert used_bytes(rig) <= before + 65536
    await mended(rig, manifest)


async def test_downloads_that_hang_hold_up_nobody_whose_adapter_is_on_the_disk(
    rig: Rig, random_adapter: RandomAdapter
) -> None:
    there = (await rig.publish(random_adapter(20, rank=4), user="there")).version_id
    text = await rig.text(there)
    await rig.evict(there)
    hanging = [
        (await rig.publish(random_adapter(seed, rank=4), user=f"hanging-{seed}")).version_id for seed in range(21, 26)
    ]
    for version_id in hanging:
        rig.s3.hang(f"^GET .*{version_id}", at_bytes=1_000_000)
    async with rig.others(), meanwhile(*(rig.ask(version_id) for version_id in hanging)) as asking:
        await until(lambda: sum(rig.downloads(version_id) > 0 for version_id in hanging) >= 3)
        assert await rig.text(there) == text
        assert not any(task.done() for task in asking)  # it waited for none of them
        answers = await asyncio.gather(*asking)
    rig.s3.heal()

    assert {answer.status_code for answer in answers} == {503}, answers[0].text


async def test_a_store_that_stumbles_once_is_asked_again(rig: Rig, random_adapter: RandomAdapter) -> None:
    manifest = await rig.publish(random_adapter(13), user="stumbled")
    rig.s3.truncate(f"^GET .*{manifest.version_id}", at_bytes=3_000_000, times=1)
    async with rig.others(answers=1), rig.counted() as happened:
        answer = await rig.ask(manifest.version_id)

    assert answer.status_code == 200, answer.text
    assert (happened.loads, happened.failures) == ({"loaded": 1}, {})
    assert rig.downloads(manifest.version_id) == 2


async def test_when_the_whole_store_is_down_what_is_in_memory_is_served(
    rig: Rig, random_adapter: RandomAdapter
) -> None:
    cold = [await rig.publish(random_adapter(seed, rank=4), user=f"cold-{seed}") for seed in (14, 15)]
    rig.s3.refuse("")
    async with rig.others(answers=8), rig.counted() as happened:
        answers = await asyncio.gather(*(rig.ask(manifest.version_id) for manifest in cold for _ in range(3)))
    rig.s3.heal()

    assert {answer.status_code for answer in answers} == {503}, answers[0].text
    assert (happened.failures, happened.loads) == ({"store_unavailable": 2}, {"failed": 2})
    assert happened.refusals == {"store_unavailable": 6}
    for manifest in cold:
        await mended(rig, manifest)
