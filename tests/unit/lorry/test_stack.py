from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from lorry.context import quiet
from lorry.errors import AlreadyRunning
from lorry.home import Home
from lorry.local.plan import Plan
from lorry.local.stack import Stack
from lorry.settings import LorrySettings


def stack(tmp_path: Path, *, attached: bool, **settings: object) -> Stack:
    plan = Plan(settings=LorrySettings(home=tmp_path, **settings), home=Home.open(tmp_path))
    return Stack(plan, base_directory=lambda: tmp_path, on_state=quiet, attached=attached)


def test_a_part_that_its_owner_does_not_run_is_missed_before_any_work(tmp_path: Path) -> None:
    with Home.open(tmp_path).ownership():
        Home.open(tmp_path).write_state({"postgres": "somewhere", "registry": "elsewhere"})
        stack(tmp_path, attached=True).require("registry")
        with pytest.raises(AlreadyRunning, match="not the engine"):
            stack(tmp_path, attached=True).require("engine")
    stack(tmp_path, attached=False).require("engine")


async def test_a_part_that_cannot_start_meanwhile_is_missed_once_the_work_is_done(tmp_path: Path) -> None:
    done = []

    async def work_meanwhile() -> None:
        async with stack(tmp_path, attached=True).starting("engine"):
            await asyncio.sleep(0)
            done.append("the work")

    with pytest.raises(AlreadyRunning, match="not the engine"):
        await work_meanwhile()
    assert done


async def test_work_that_fails_is_heard_instead_of_the_part_that_should_start_meanwhile(tmp_path: Path) -> None:
    async def work_that_fails() -> None:
        async with stack(tmp_path, attached=True).starting("engine"):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await work_that_fails()


def test_only_an_engine_of_our_own_is_started(tmp_path: Path) -> None:
    assert stack(tmp_path, attached=False).will_start("engine")
    assert not stack(tmp_path, attached=True).will_start("engine")
    assert not stack(tmp_path, attached=False, engine_url="http://engine").will_start("engine")


async def test_a_command_that_starts_nothing_here_owns_nothing(tmp_path: Path) -> None:
    one, other = (
        stack(tmp_path, attached=False, database_url="postgresql+asyncpg://elsewhere/lorry") for _ in range(2)
    )
    for each in (one, other):
        await each.ensure("postgres")
    assert not Home.open(tmp_path).is_owned()
    await one.own()
    with pytest.raises(AlreadyRunning, match="try again"):
        await other.own()
    await one.stop()
    await other.own()
    await other.stop()
    assert not Home.open(tmp_path).is_owned()
