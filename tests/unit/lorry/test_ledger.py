from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from lorry.errors import HomeBusy
from lorry.home import Home
from lorry.local.ledger import Entry, Ledger
from lorry.processes import process_start
from tests.support.waiting import until


def ledger(tmp_path: Path) -> Ledger:
    return Ledger(Home.open(tmp_path))


def entry(name: str, *, pid: int | None = None, started: float | None = None) -> Entry:
    pid = pid or os.getpid()
    return Entry(name=name, pid=pid, started=started or process_start(pid) or 0.0, address="somewhere", ready=True)


def test_a_part_that_has_ended_is_not_believed_to_run(tmp_path: Path) -> None:
    ledger(tmp_path).write([entry("postgres"), entry("registry", started=1.5)])
    assert [each.name for each in ledger(tmp_path).entries()] == ["postgres"]


def test_what_another_release_wrote_is_read_as_nothing(tmp_path: Path) -> None:
    home = Home.open(tmp_path)
    (home.folder("run") / "parts.json").write_text('{"postgres": "somewhere"}')
    assert Ledger(home).entries() == []


def test_commands_are_known_while_they_use_parts(tmp_path: Path) -> None:
    one, other = ledger(tmp_path), ledger(tmp_path)
    first = one.enter(["postgres"])
    second = other.enter(["postgres", "registry"])
    assert {user.key: user.parts for user in one.users()} == {
        first.key: ("postgres",),
        second.key: ("postgres", "registry"),
    }
    assert [user.key for user in one.users(but=first)] == [second.key]
    other.leave(second)
    assert one.users() == [first]


def test_a_command_that_was_killed_uses_nothing(tmp_path: Path) -> None:
    found = ledger(tmp_path)
    user = found.enter(["postgres"])
    path = tmp_path / "run" / "users" / user.key
    path.write_text(json.dumps({**json.loads(path.read_text()), "started": 1.5}))
    (tmp_path / "run" / "users" / "2.x").write_text("")
    assert found.users() == []
    assert list((tmp_path / "run" / "users").iterdir()) == []


async def test_who_waits_for_the_lock_says_for_whom_and_goes_on(tmp_path: Path) -> None:
    told: list[str] = []
    one, other = ledger(tmp_path), ledger(tmp_path)
    assert one.try_lock("starting parts")

    async def wait() -> bool:
        async with other.locked("x", patience_seconds=30, on_wait=told.append, enough=lambda: False) as needed:
            return needed

    waiting = asyncio.create_task(wait())
    await until(lambda: bool(told))
    assert not waiting.done()
    one.unlock()
    assert await asyncio.wait_for(waiting, 20)
    (line,) = told
    assert f"(pid {os.getpid()}), which is starting parts in {tmp_path}" in line
    assert one.try_lock("again")


async def test_who_needs_the_lock_no_longer_goes_on_without_it(tmp_path: Path) -> None:
    one, other = ledger(tmp_path), ledger(tmp_path)
    assert one.try_lock("starting parts")
    async with other.locked("x", patience_seconds=30, on_wait=print, enough=lambda: True) as needed:
        assert not needed
    assert not other.try_lock("y")


async def test_who_has_waited_long_enough_is_told_who_holds_it_and_what_to_do(tmp_path: Path) -> None:
    one, other = ledger(tmp_path), ledger(tmp_path)
    assert one.try_lock("stopping parts")
    with pytest.raises(HomeBusy, match=rf"pid {os.getpid()}\), which is stopping parts [\s\S]*`kill {os.getpid()}`"):
        async with other.locked("x", patience_seconds=0.3, on_wait=lambda _: None, enough=lambda: False):
            pass
