"""What the object store's clients make of a store that fails, stalls, lies and loses answers."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator

import pytest

from kit.errors import ObjectConflict, ObjectMissing, StorageUnavailable
from kit.sealing import Fill
from kit.settings import StorageSettings
from kit.storage import ObjectStorage
from tests.support.faulty_s3 import FaultyS3, faulty_s3

BIG = random.Random(1).randbytes(3_500_000)


@pytest.fixture
async def faulty(storage_settings: StorageSettings) -> AsyncIterator[FaultyS3]:
    patient = storage_settings.model_copy(update={"s3_timeout_seconds": 10.0})  # a slow answer is no other request
    async with faulty_s3(patient) as proxy:
        yield proxy


@pytest.fixture
def broken(faulty: FaultyS3) -> ObjectStorage:
    """The store by way of the proxy."""
    return ObjectStorage(faulty.settings)


@pytest.fixture
def impatient(faulty: FaultyS3) -> ObjectStorage:
    """The same, for those who wait until a time is over."""
    return ObjectStorage(faulty.settings.model_copy(update={"s3_timeout_seconds": 3.0}))


async def collect(storage: ObjectStorage, key: str) -> bytes:
    return b"".join([chunk async for chunk in storage.stream(key)])


async def test_without_rules_the_proxy_changes_nothing(broken: ObjectStorage, storage: ObjectStorage) -> None:
    await broken.put("a", BIG)
    assert await storage.get("a") == BIG == await broken.get("a") == await collect(broken, "a")
    assert [found.key for found in await broken.list("")] == ["a"]


@pytest.mark.parametrize("status", [500, 503, 429])
async def test_an_error_that_passes_is_not_noticed(broken: ObjectStorage, faulty: FaultyS3, status: int) -> None:
    for pattern in ("PUT ", "GET .*/a$", "HEAD ", "DELETE ", "GET .*list-type"):
        faulty.answer(pattern, status=status, times=1)
    await broken.put("a", b"x")
    assert await broken.get("a") == b"x"
    assert (await broken.head("a")).size_bytes == 1
    assert len(await broken.list("")) == 1
    await broken.delete("a")
    assert faulty.count("PUT ") == 2


@pytest.mark.parametrize("status", [500, 503])
async def test_an_error_that_stays_is_an_outage(broken: ObjectStorage, faulty: FaultyS3, status: int) -> None:
    await broken.put("a", b"x")
    faulty.answer("", status=status)
    outcomes = await asyncio.gather(
        broken.check(),
        broken.put("a", b"y"),
        broken.get("a"),
        collect(broken, "a"),
        broken.head("a"),
        broken.copy("a", "b"),
        broken.delete("a"),
        broken.delete_many(["a"]),
        broken.erase(""),
        broken.list(""),
        broken.multipart.begin("a"),
        broken.multipart.list_unfinished(),
        return_exceptions=True,
    )
    assert {type(outcome) for outcome in outcomes} == {StorageUnavailable}
    faulty.heal()
    assert await broken.get("a") == b"x"


async def test_a_store_that_says_nothing_is_given_up_in_bounded_time(
    faulty: FaultyS3, storage_settings: StorageSettings
) -> None:
    impatient = ObjectStorage(faulty.settings.model_copy(update={"s3_timeout_seconds": 0.3, "s3_attempts": 2}))
    faulty.stall("", seconds=30)
    began = time.monotonic()
    with pytest.raises(StorageUnavailable):
        await impatient.get("a")
    assert time.monotonic() - began < 20


async def test_waiting_for_a_silent_store_takes_no_thread_from_anybody_else(faulty: FaultyS3) -> None:
    settings = faulty.settings.model_copy(update={"s3_timeout_seconds": 30.0, "s3_threads": 8, "s3_attempts": 1})
    waiting_store = ObjectStorage(settings)
    faulty.stall("", seconds=60)
    waiting = [asyncio.create_task(waiting_store.get("a")) for _ in range(100)]
    await asyncio.sleep(0.3)
    began = time.monotonic()
    await asyncio.gather(*(asyncio.to_thread(time.sleep, 0) for _ in range(64)))
    assert time.monotonic() - began < 20, "a thread that waits for the store would take 30"
    for task in waiting:
        task.cancel()
    waiting_store.close()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)


async def test_a_body_that_breaks_off_is_read_on_from_there(
    broken: ObjectStorage, storage: ObjectStorage, faulty: FaultyS3
) -> None:
    await storage.put("a", BIG)
    faulty.truncate("GET ", at_bytes=1_500_000, times=2)
    assert await collect(broken, "a") == BIG
    assert faulty.count("GET ") == 3
    faulty.truncate("GET ", at_bytes=1_500_000, times=2)
    assert await broken.get("a") == BIG


async def test_a_body_that_hangs_is_asked_for_from_there_after_the_time_out(
    impatient: ObjectStorage, storage: ObjectStorage, faulty: FaultyS3
) -> None:
    await storage.put("a", BIG)
    faulty.hang("GET ", at_bytes=2_500_000, times=1)
    assert await collect(impatient, "a") == BIG
    faulty.hang("GET ", at_bytes=2_500_000, times=1)
    assert await impatient.get("a") == BIG
    assert faulty.count("GET ") == 4


async def test_a_body_that_always_breaks_off_is_an_outage(
    broken: ObjectStorage, storage: ObjectStorage, faulty: FaultyS3
) -> None:
    await storage.put("a", BIG)
    faulty.truncate("GET ", at_bytes=1000)
    for call in (collect(broken, "a"), broken.get("a")):
        with pytest.raises(StorageUnavailable):
            await call


async def test_a_read_that_goes_on_is_of_the_same_object(
    broken: ObjectStorage, storage: ObjectStorage, faulty: FaultyS3
) -> None:
    await storage.put("a", BIG)
    faulty.truncate("GET ", at_bytes=2_000_000, times=1)
    read = broken.stream("a")
    start = await anext(read)
    await storage.put("a", BIG[::-1])
    assert BIG.startswith(start)
    with pytest.raises(ObjectConflict):
        async for _ in read:
            pass


async def test_a_bit_flipped_on_the_way_is_noticed(
    broken: ObjectStorage, storage: ObjectStorage, faulty: FaultyS3
) -> None:
    await storage.put("a", BIG)
    faulty.corrupt("GET ", at_bytes=2_000_000, times=1)
    assert await broken.get("a") == BIG
    assert faulty.count("GET ") == 2
    faulty.corrupt("GET ", at_bytes=2_000_000)
    for call in (broken.get("a"), collect(broken, "a")):
        with pytest.raises(StorageUnavailable, match="damaged"):
            await call


async def test_whoever_reads_along_is_asked_again_when_the_way_was_to_blame_and_not_when_they_refuse(
    impatient: ObjectStorage, storage: ObjectStorage, faulty: FaultyS3
) -> None:
    await storage.put("a", BIG)

    def exactly(fill: Fill) -> bytes:
        """Read all, in odd pieces, and refuse anything else than what was put, as soon as it shows."""
        found, view = bytearray(), memoryview(bytearray(300_001))
        while count := fill(view):
            found += view[:count]
            if not BIG.startswith(found):
                raise ValueError("other bytes")
        return bytes(found)

    assert await impatient.read("a", exactly) == BIG
    for break_it in (faulty.truncate, faulty.hang, faulty.corrupt):
        before = faulty.count("GET ")
        break_it("GET ", at_bytes=1_500_000, times=1)
        assert await impatient.read("a", exactly) == BIG
        assert faulty.count("GET ") == before + 2
    await storage.put("a", BIG[::-1])
    before = faulty.count("GET ")
    with pytest.raises(ValueError, match="other bytes"):
        await impatient.read("a", exactly)
    assert faulty.count("GET ") == before + 1
    with pytest.raises(ObjectMissing):
        await impatient.read("b", exactly)
    faulty.truncate("GET ", at_bytes=1000)
    with pytest.raises(StorageUnavailable):
        await impatient.read("a", exactly)


async def test_a_lost_answer_does_not_turn_a_success_into_a_conflict(
    broken: ObjectStorage, storage: ObjectStorage, faulty: FaultyS3
) -> None:
    faulty.lose_answer("PUT ", times=1)
    await broken.put("a", b"mine", only_if_absent=True)
    etag = (await storage.head("a")).etag
    faulty.lose_answer("PUT ", times=1)
    await broken.put("a", b"newer", if_etag=etag)
    assert await storage.get("a") == b"newer"
    with pytest.raises(ObjectConflict):
        await broken.put("a", b"another's", only_if_absent=True)
    with pytest.raises(ObjectConflict):
        await broken.put("a", b"another's", if_etag=etag)


async def test_a_lost_answer_does_not_lose_an_upload_in_parts(
    broken: ObjectStorage, storage: ObjectStorage, faulty: FaultyS3
) -> None:
    part_bytes = 5 << 20
    data = random.Random(2).randbytes(part_bytes + 1000)
    upload = await broken.multipart.begin("a")
    faulty.lose_answer("PUT ", times=1)
    parts = [
        await broken.multipart.put_part(upload, 1, data[:part_bytes]),
        await broken.multipart.put_part(upload, 2, data[part_bytes:]),
    ]
    faulty.lose_answer("POST .*uploadId", times=1)
    await broken.multipart.complete(upload, parts)
    assert await storage.get("a") == data
    await broken.multipart.complete(upload, parts)


async def test_a_dropped_connection_is_made_again(broken: ObjectStorage, faulty: FaultyS3) -> None:
    faulty.refuse("", times=2)
    await broken.put("a", b"x")
    faulty.refuse("", times=2)
    assert await broken.get("a") == b"x"


async def test_a_listing_that_arrives_damaged_is_asked_for_again(
    broken: ObjectStorage, storage: ObjectStorage, faulty: FaultyS3
) -> None:
    await storage.put("a", b"x")
    faulty.truncate("GET .*list-type", at_bytes=40, times=2)
    assert [found.key for found in await broken.list("")] == ["a"]


async def test_a_slow_body_arrives(broken: ObjectStorage, storage: ObjectStorage, faulty: FaultyS3) -> None:
    await storage.put("a", BIG[:200_000])
    faulty.slow("GET ", bytes_per_second=100_000)
    assert await collect(broken, "a") == BIG[:200_000]


@pytest.mark.parametrize("code", ["RequestTimeTooSkewed", "RequestExpired"])
async def test_a_clock_that_is_wrong_is_named_as_the_cause(broken: ObjectStorage, faulty: FaultyS3, code: str) -> None:
    faulty.answer("", status=403, code=code)
    for call in (broken.get("a"), broken.put("a", b"x"), broken.list("")):
        with pytest.raises(StorageUnavailable, match="clock"):
            await call


async def test_what_the_store_forbids_is_neither_an_outage_nor_a_missing_object(
    broken: ObjectStorage, faulty: FaultyS3
) -> None:
    faulty.answer("", status=403)
    with pytest.raises(Exception, match="AccessDenied") as caught:
        await broken.get("a")
    assert not isinstance(caught.value, StorageUnavailable | ObjectMissing)
