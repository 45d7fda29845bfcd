from __future__ import annotations

import asyncio

import pytest

from serving.engine.single_flight import SingleFlight


class Work:
    def __init__(self) -> None:
        self.calls = 0
        self.release = asyncio.Event()

    async def __call__(self) -> int:
        self.calls += 1
        await self.release.wait()
        return self.calls


async def test_a_hundred_callers_share_one_call() -> None:
    flights: SingleFlight[str, int] = SingleFlight()
    work = Work()
    callers = [asyncio.create_task(flights.run("v", work)) for _ in range(100)]
    await asyncio.sleep(0)
    work.release.set()

    assert await asyncio.gather(*callers) == [1] * 100


async def test_different_keys_do_not_wait_for_each_other() -> None:
    flights: SingleFlight[str, int] = SingleFlight()
    slow, quick = Work(), Work()
    quick.release.set()
    waiting = asyncio.create_task(flights.run("slow", slow))

    assert await flights.run("quick", quick) == 1
    slow.release.set()
    assert await waiting == 1


async def test_a_caller_that_goes_away_leaves_the_work_to_the_others() -> None:
    flights: SingleFlight[str, int] = SingleFlight()
    work = Work()
    first, second = (asyncio.create_task(flights.run("v", work)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    work.release.set()

    assert await second == 1
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_an_error_reaches_everyone_who_waited_and_nobody_after() -> None:
    flights: SingleFlight[str, int] = SingleFlight()

    async def broken() -> int:
        await asyncio.sleep(0)
        raise RuntimeError("broken")

    results = await asyncio.gather(*(flights.run("v", broken) for _ in range(3)), return_exceptions=True)
    work = Work()
    work.release.set()

    assert [str(result) for result in results] == ["broken"] * 3
    assert await flights.run("v", work) == 1


async def test_what_ended_in_the_same_turn_of_the_loop_is_not_joined() -> None:
    flights: SingleFlight[str, int] = SingleFlight()
    woken, calls = asyncio.get_running_loop().create_future(), 0

    async def work() -> int:
        nonlocal calls
        calls += 1
        await woken
        return calls

    async def second() -> int:
        await woken  # woken behind the first work, by the same event
        assert "v" not in flights
        return await flights.run("v", work)

    first = asyncio.create_task(flights.run("v", work))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    other = asyncio.create_task(second())
    await asyncio.sleep(0)
    woken.set_result(None)

    assert (await first, await other) == (1, 2)
    assert len(flights) == 0


async def test_nothing_is_left_behind() -> None:
    flights: SingleFlight[int, int] = SingleFlight()
    work = Work()
    work.release.set()
    await asyncio.gather(*(flights.run(key, work) for key in range(50)))
    await asyncio.sleep(0)

    assert len(flights) == 0
