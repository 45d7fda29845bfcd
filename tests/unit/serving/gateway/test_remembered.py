from __future__ import annotations

import asyncio
import gc

import pytest

from serving.gateway.remembered import Remembered
from tests.support.waiting import settle


class Down(Exception):
    """The service does not answer."""


class Refused(Exception):
    """The service says no."""


class Service:
    """Answers how often it was asked, unless it is down or says no."""

    def __init__(self) -> None:
        self.asked = 0
        self.error: Exception | None = None
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def was_asked(self, times: int) -> None:
        """Return when it was asked so often; what is renewed ahead of its time is asked for a moment later."""
        async with asyncio.timeout(30):
            while self.asked < times:  # noqa: ASYNC110 - who is renewed behind their back is told nothing
                await asyncio.sleep(0.001)

    async def __call__(self) -> int:
        self.asked += 1
        asked = self.asked
        await self.may_answer.wait()
        if self.error is not None:
            raise self.error
        return asked


def memory(
    clock: list[float], *, seconds: float = 1.0, max_entries: int = 100, patience_seconds: float = 30.0
) -> Remembered[str, int]:
    return Remembered(
        seconds=seconds,
        stale_seconds=60.0,
        unavailable=(Down,),
        max_entries=max_entries,
        patience_seconds=patience_seconds,
        clock=lambda: clock[0],
    )


async def test_a_service_that_hangs_is_waited_for_once_and_then_answered_for_from_memory() -> None:
    """Whoever is not known waits, and when it answers again everybody hears the new answer."""
    clock, service = [0.0], Service()
    remembered = memory(clock, patience_seconds=0.05)
    assert [await remembered.get(key, service) for key in "ab"] == [1, 2]
    clock[0] = 2.0
    service.may_answer.clear()
    assert await asyncio.wait_for(remembered.get("a", service), 5) == 1
    for key, known in (("a", 1), ("b", 2)):  # nobody waits any more: these end without the loop's turning
        with pytest.raises(StopIteration) as ended:
            remembered.get(key, service).send(None)
        assert ended.value.value == known
    unknown = asyncio.ensure_future(remembered.get("c", service))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(unknown), 0.2)
    service.may_answer.set()
    assert await unknown > 2
    assert await remembered.get("a", service) > 2


async def test_an_answer_is_fresh_for_its_time_and_then_asked_for_again() -> None:
    clock, service = [0.0], Service()
    remembered = memory(clock)
    assert [await remembered.get("a", service) for _ in range(3)] == [1, 1, 1]
    clock[0] = 1.0
    assert await remembered.get("a", service) == 2
    assert await remembered.get("b", service) == 3


async def test_an_answer_is_renewed_before_it_is_old_so_that_nobody_waits() -> None:
    clock, service = [0.0], Service()
    remembered = memory(clock)
    await remembered.get("a", service)
    clock[0] = 0.6
    service.may_answer.clear()
    assert await asyncio.wait_for(remembered.get("a", service), 1) == 1
    assert service.asked == 1, "whoever comes first is not held up by what is renewed behind them"
    await service.was_asked(2)
    service.may_answer.set()
    await settle()
    clock[0] = 1.1
    assert await remembered.get("a", service) == 2, "what was asked for at 0.6 is fresh until 1.6"
    assert service.asked == 2


async def test_however_many_ask_at_once_the_service_is_asked_once() -> None:
    service = Service()
    service.may_answer.clear()
    remembered = memory([0.0], seconds=0)
    waiting = [asyncio.create_task(remembered.get("a", service)) for _ in range(50)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    service.may_answer.set()
    assert await asyncio.gather(*waiting[1:]) == [1] * 49, "one that leaves takes nothing from the others"


async def test_while_the_service_is_down_the_last_answer_holds_for_so_long() -> None:
    clock, service = [0.0], Service()
    remembered = memory(clock)
    await remembered.get("a", service)
    service.error = Down()
    clock[0] = 30.0
    assert await remembered.get("a", service) == 1
    with pytest.raises(Down):
        await remembered.get("b", service)
    clock[0] = 61.0
    with pytest.raises(Down):
        await remembered.get("a", service)


async def test_once_it_is_known_to_be_down_nobody_waits_for_it() -> None:
    clock, service = [0.0], Service()
    remembered = memory(clock)
    await remembered.get("a", service)
    clock[0], service.error = 5.0, Down()
    await remembered.get("a", service)
    service.may_answer.clear()
    assert await asyncio.wait_for(remembered.get("a", service), 1) == 1, "answered though the service hangs"
    service.error = None
    service.may_answer.set()
    await service.was_asked(3)
    await settle()
    assert await remembered.get("a", service) == 3, "it was tried behind the caller's back"


async def test_a_refusal_is_an_answer_and_ends_what_was_remembered() -> None:
    clock, service = [0.0], Service()
    remembered = memory(clock)
    await remembered.get("a", service)
    clock[0], service.error = 2.0, Refused()
    with pytest.raises(Refused):
        await remembered.get("a", service)
    service.error = Down()
    with pytest.raises(Down):
        await remembered.get("a", service)


async def test_zero_seconds_ask_every_time() -> None:
    service = Service()
    remembered = memory([0.0], seconds=0)
    assert [await remembered.get("a", service) for _ in range(3)] == [1, 2, 3]


async def test_memory_is_bounded() -> None:
    service = Service()
    remembered = memory([0.0], max_entries=2)
    for key in "abc":
        await remembered.get(key, service)
    assert await remembered.get("c", service) == 3
    assert await remembered.get("a", service) == 4


async def test_what_is_known_otherwise_is_changed_at_once_and_asked_for_in_its_time() -> None:
    clock, service = [0.0], Service()
    remembered = memory(clock)
    remembered.amend("a", lambda known: known + 100)
    assert await remembered.get("a", service) == 1, "there was nothing to change"
    remembered.amend("a", lambda known: known + 100)
    assert await remembered.get("a", service) == 101
    clock[0] = 1.0
    assert await remembered.get("a", service) == 2
    remembered.amend("a", lambda known: None)
    assert await remembered.get("a", service) == 3


async def test_an_answer_that_was_on_its_way_does_not_undo_what_is_known_since() -> None:
    clock, service = [0.0], Service()
    remembered = memory(clock)
    await remembered.get("a", service)
    clock[0] = 0.6
    service.may_answer.clear()
    assert await remembered.get("a", service) == 1  # and asks again behind the caller's back
    await service.was_asked(2)
    early = asyncio.create_task(remembered.get("b", service))
    await asyncio.sleep(0)
    for key in ("a", "b"):
        remembered.amend(key, lambda known: 100)
    service.may_answer.set()
    assert await early == 3, "who asked before gets what was answered"
    await settle()
    assert await remembered.get("a", service) == 100  # and asks again, for it is as old as it was
    await service.was_asked(4)
    assert await remembered.get("b", service) == 5


async def test_a_failure_of_what_was_overtaken_is_nobodys(caplog: pytest.LogCaptureFixture) -> None:
    clock, service = [0.0], Service()
    remembered = memory(clock)
    await remembered.get("a", service)
    clock[0], service.error = 0.6, Down()
    service.may_answer.clear()
    await remembered.get("a", service)
    await service.was_asked(2)
    remembered.amend("a", lambda known: 100)
    service.may_answer.set()
    await settle()
    assert await remembered.get("a", service) == 100
    gc.collect()
    assert "never retrieved" not in caplog.text
