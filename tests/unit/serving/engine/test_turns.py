"""Few work at once; urgent ones go first; nobody who goes away takes a place with them."""

from __future__ import annotations

import asyncio

import pytest

from serving.engine.turns import Turns
from serving.engine.urgency import Urgency

URGENT, PATIENT = Urgency(urgent=True), Urgency()


class Crowd:
    """Workers that wait until they are told to end."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.working: list[str] = []
        self.began: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}
        self.urgencies: dict[str, Urgency] = {}

    async def start(self, name: str, *, urgent: bool) -> asyncio.Task[None]:
        self._ends[name] = asyncio.Event()
        self.urgencies[name] = Urgency(urgent=urgent)
        task = asyncio.create_task(self._work(name))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return task

    async def end(self, name: str) -> None:
        self._ends[name].set()
        for _ in range(4):
            await asyncio.sleep(0)

    async def _work(self, name: str) -> None:
        async with self.turns.turn(urgent=self.urgencies[name]):
            self.working.append(name)
            self.began.append(name)
            try:
                await self._ends[name].wait()
            finally:
                self.working.remove(name)


async def test_patient_work_leaves_the_last_place_to_urgent_work() -> None:
    crowd = Crowd(Turns(3))
    for name in ("a", "b", "c"):
        await crowd.start(name, urgent=False)
    assert crowd.working == ["a", "b"]
    await crowd.start("u", urgent=True)
    assert crowd.working == ["a", "b", "u"]


async def test_urgent_work_goes_before_what_waited_longer_and_each_kind_in_its_order() -> None:
    crowd = Crowd(Turns(1))
    await crowd.start("first", urgent=False)
    for name in ("p1", "p2", "u1", "u2"):
        await crowd.start(name, urgent=name.startswith("u"))
    for name in ("first", "u1", "u2", "p1"):
        await crowd.end(name)
    assert crowd.began == ["first", "u1", "u2", "p1", "p2"]


async def test_what_becomes_urgent_while_it_waits_goes_behind_the_urgent_ones_and_before_all_others() -> None:
    crowd = Crowd(Turns(2))
    await crowd.start("first", urgent=False)
    for name in ("p1", "p2", "p3"):
        await crowd.start(name, urgent=False)
    crowd.urgencies["p3"].rise()  # the place that is kept is free
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await crowd.start("u", urgent=True)
    crowd.urgencies["p2"].rise()
    crowd.urgencies["p2"].rise()
    crowd.urgencies["first"].rise()  # holds its place already
    for name in ("p3", "u", "p2", "first"):
        await crowd.end(name)
    assert crowd.began == ["first", "p3", "u", "p2", "p1"]


async def test_who_goes_away_while_waiting_or_while_being_called_takes_no_place() -> None:
    turns = Turns(1)
    crowd = Crowd(turns)
    await crowd.start("first", urgent=True)
    waiting = await crowd.start("waiting", urgent=True)
    called = await crowd.start("called", urgent=True)
    waiting.cancel()
    await asyncio.sleep(0)
    crowd._ends["first"].set()
    while crowd.working:  # noqa: ASYNC110  # the moment matters
        await asyncio.sleep(0)
    called.cancel()  # it may have been called already
    await asyncio.gather(waiting, called, return_exceptions=True)
    async with asyncio.timeout(30), turns.turn(urgent=URGENT):
        pass


async def test_an_error_gives_the_place_back() -> None:
    turns = Turns(1)
    with pytest.raises(RuntimeError):
        async with turns.turn(urgent=PATIENT):
            raise RuntimeError
    async with asyncio.timeout(30), turns.turn(urgent=PATIENT):
        pass


def test_there_must_be_a_place() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Turns(0)
