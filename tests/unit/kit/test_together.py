"""Work that stands or falls together."""

from __future__ import annotations

import asyncio

import pytest

from kit.together import all_of


async def test_results_come_in_the_order_of_the_works() -> None:
    async def after(seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    assert await all_of(after(seconds) for seconds in (0.02, 0.0, 0.01)) == [0.02, 0.0, 0.01]


async def test_the_first_failure_is_raised_and_no_other_work_outlives_it() -> None:
    ended = asyncio.Event()

    async def fails() -> None:
        await asyncio.sleep(0)
        raise ValueError("the first")

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            ended.set()

    with pytest.raises(ValueError, match="the first"):
        await all_of([waits(), fails()])
    assert ended.is_set()
