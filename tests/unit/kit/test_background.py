"""Work that nobody waits for, failing in every way in which it can."""

from __future__ import annotations

import asyncio
import gc
import logging
import warnings

import pytest

from kit.background import FAILURES, Errands, again_and_again, attempt, until_told
from kit.errors import BackgroundEnded, DatabaseUnavailable


def failures(of: str, kind: str) -> float:
    return FAILURES.labels(of, kind)._value.get()


async def break_off_from_within() -> None:
    """Wait for what somebody else breaks off: asyncio hands that on as if it were us who are to stop."""
    other = asyncio.create_task(asyncio.sleep(60))
    asyncio.get_running_loop().call_soon(other.cancel)
    await asyncio.shield(other)


async def ended(task: asyncio.Task[object]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("error", [DatabaseUnavailable(), OSError(), ValueError("a mistake of ours"), None])
async def test_a_chore_that_fails_is_done_again(error: Exception | None) -> None:
    done = asyncio.Event()
    calls = 0

    async def chore() -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            if error is None:
                await break_off_from_within()
            else:
                raise error
        done.set()

    task = asyncio.create_task(again_and_again(chore, 0.0, of="a chore"))
    await asyncio.wait_for(done.wait(), 60)
    await ended(task)
    assert task.cancelled(), "to be told to stop is no failure"


async def test_a_chore_that_goes_on_failing_is_not_tried_in_a_frenzy() -> None:
    calls = 0

    async def chore() -> None:
        nonlocal calls
        calls += 1
        raise DatabaseUnavailable

    began = asyncio.get_running_loop().time()
    task = asyncio.create_task(again_and_again(chore, 0.0, of="a broken chore"))
    await asyncio.sleep(0.1)
    took_seconds = asyncio.get_running_loop().time() - began
    await ended(task)
    assert calls <= 1 + took_seconds / 0.5


async def test_a_failure_is_counted_by_its_kind_and_logged_with_what_was_done(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def refused() -> None:
        raise DatabaseUnavailable("secret words of a person")

    async def broken() -> None:
        raise ValueError

    with caplog.at_level(logging.WARNING):
        assert not await attempt(refused, of="counted", doing="asking")
        assert not await attempt(broken, of="counted", doing="reckoning")
        assert not await attempt(break_off_from_within, of="counted", doing="waiting")
    assert failures("counted", "refused") == 1
    assert failures("counted", "broken") == 2
    assert [record.message for record in caplog.records] == [
        "counted: asking failed: DatabaseUnavailable",
        "counted: reckoning failed unexpectedly",
        "counted: waiting was broken off from within",
    ]


async def test_an_errand_that_fails_is_heard_of_and_one_that_ends_is_forgotten() -> None:
    errands = Errands(of="an errand")

    async def broken() -> None:
        raise ValueError

    assert await errands.start(asyncio.sleep(0)) is True
    assert await errands.start(broken()) is False
    assert failures("an errand", "broken") == 1
    assert len(errands) == 0


async def test_errands_are_broken_off_at_the_end_those_too_that_have_not_begun() -> None:
    errands = Errands(of="an errand that ends")
    began = asyncio.Event()

    async def long() -> None:
        began.set()
        await asyncio.sleep(60)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = errands.start(long())
        await began.wait()
        two = errands.start(long())
        await errands.close()
        gc.collect()
    assert one.cancelled()
    assert two.cancelled()
    assert failures("an errand that ends", "broken") == 0


async def test_what_a_process_cannot_be_without_ends_it_with_what_it_raised() -> None:
    async def broken() -> None:
        raise ValueError("a mistake of ours")

    async def refused() -> None:
        raise DatabaseUnavailable

    async def ends() -> None: ...

    goes_on = asyncio.create_task(asyncio.sleep(60))
    with pytest.raises(BackgroundEnded, match=r"a worker: .*a mistake of ours"):
        await until_told(asyncio.Event(), goes_on, asyncio.create_task(broken()), of="a worker")
    with pytest.raises(DatabaseUnavailable):
        await until_told(asyncio.Event(), goes_on, asyncio.create_task(refused()), of="a worker")
    with pytest.raises(BackgroundEnded, match="nobody told it to"):
        await until_told(asyncio.Event(), goes_on, asyncio.create_task(ends()), of="a worker")
    goes_on.cancel()
    with pytest.raises(BackgroundEnded, match="broken off"):
        await until_told(asyncio.Event(), goes_on, of="a worker")


async def test_a_process_that_is_told_to_stop_stops() -> None:
    stop = asyncio.Event()
    goes_on = asyncio.create_task(asyncio.sleep(60))
    asyncio.get_running_loop().call_soon(stop.set)
    await until_told(stop, goes_on, of="a worker")
    await ended(goes_on)
