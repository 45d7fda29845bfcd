from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from lorry.context import quiet
from lorry.errors import HomeBusy
from lorry.home import Home
from lorry.local.ledger import Entry, Ledger, User
from lorry.local.plan import PART_NAMES, Plan
from lorry.local.stack import Stack
from lorry.processes import process_start
from lorry.settings import LorrySettings
from tests.support.waiting import until
from training.errors import BaseModelUnavailable

ELSEWHERE = "postgresql+asyncpg://elsewhere/lorry"


def stack(
    tmp_path: Path,
    *,
    patience: float = 60.0,
    on_wait: Callable[[str], None] = print,
    base: Callable[[], Path] = Path,
    **settings: object,
) -> Stack:
    plan = Plan(settings=LorrySettings(home=tmp_path, **settings), home=Home.open(tmp_path))
    return Stack(plan, base_directory=base, on_state=quiet, on_wait=on_wait, patience_seconds=patience)


def entry(plan: Plan, name: str, *, ready: bool = True, address: str | None = None) -> Entry:
    """A part that runs: this very process."""
    addresses = {
        "seaweedfs": f"http://127.0.0.1:{plan.seaweed_ports.s3}",
        "registry": plan.registry_url,
        "engine": plan.engine_url,
    }
    started = process_start(os.getpid()) or 0.0
    given = address or addresses.get(name, "socket")
    return Entry(name=name, pid=os.getpid(), started=started, address=given, ready=ready)


def runs_elsewhere(tmp_path: Path, *names: str, ready: bool = True) -> User:
    """Have parts run for another command."""
    plan = stack(tmp_path).plan
    ledger = Ledger(plan.home)
    ledger.write([entry(plan, name, ready=ready) for name in names])
    return ledger.enter(names)


async def test_a_command_uses_what_another_runs_and_never_takes_the_lock(tmp_path: Path) -> None:
    runs_elsewhere(tmp_path, *PART_NAMES[:3])
    holder = Ledger(Home.open(tmp_path))
    assert holder.try_lock("starting the engine")
    one = stack(tmp_path, patience=0)
    await one.ensure("registry")
    assert [name for name, _, _ in one.addresses()] == ["postgres", "seaweedfs", "registry"]
    assert len(await one.stop()) == 1


async def test_only_an_engine_of_our_own_that_does_not_run_is_started(tmp_path: Path) -> None:
    assert stack(tmp_path).will_start("engine")
    assert not stack(tmp_path, engine_url="http://engine").will_start("engine")
    runs_elsewhere(tmp_path, "engine")
    assert not stack(tmp_path).will_start("engine")


async def test_signals_are_heard_while_the_base_is_unpacked(tmp_path: Path) -> None:
    loop, unpacking, loop_goes_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def unpack() -> Path:
        loop.call_soon_threadsafe(unpacking.set)
        assert loop_goes_on.wait(10)
        raise BaseModelUnavailable("the wheel is cut", field="base")

    runs_elsewhere(tmp_path, *PART_NAMES[:3])
    one = stack(tmp_path, base=unpack)
    starting = asyncio.create_task(one.ensure("engine"))
    async with asyncio.timeout(30):
        await unpacking.wait()
    loop_goes_on.set()
    with pytest.raises(BaseModelUnavailable, match="cut"):
        await starting
    await one.stop()


async def test_a_command_that_needs_no_part_of_this_machine_touches_none(tmp_path: Path) -> None:
    one = stack(tmp_path, database_url=ELSEWHERE)
    await one.ensure("postgres")
    assert Ledger(Home.open(tmp_path)).users() == []
    assert not (tmp_path / "run" / "lock").exists()
    assert await one.stop() == []


async def test_a_command_waits_for_parts_that_another_starts(tmp_path: Path) -> None:
    told: list[str] = []
    runs_elsewhere(tmp_path, "postgres", ready=False)
    ledger = Ledger(Home.open(tmp_path))
    assert ledger.try_lock("starting parts")
    one = stack(tmp_path, on_wait=told.append)
    waiting = asyncio.create_task(one.ensure("postgres"))
    await until(lambda: bool(told))
    assert not waiting.done()
    ledger.write([entry(one.plan, "postgres")])
    await asyncio.wait_for(waiting, 20)  # the lock is held still
    assert "which is starting parts" in told[0]


async def test_a_command_that_waits_too_long_is_refused_with_what_to_do(tmp_path: Path) -> None:
    runs_elsewhere(tmp_path, "postgres", ready=False)
    holder = Ledger(Home.open(tmp_path))
    assert holder.try_lock("starting parts")
    with pytest.raises(HomeBusy, match="try again when it is done, or end it"):
        await stack(tmp_path, patience=0.3, on_wait=lambda _: None).ensure("postgres")


async def test_a_part_that_cannot_start_meanwhile_is_missed_once_the_work_is_done(tmp_path: Path) -> None:
    holder = Ledger(Home.open(tmp_path))
    assert holder.try_lock("starting parts")
    done = []

    async def work_meanwhile() -> None:
        async with stack(tmp_path, patience=0.1, on_wait=lambda _: None).starting("engine"):
            await asyncio.sleep(0.5)
            done.append("the work")

    with pytest.raises(HomeBusy, match="try again when it is done, or end it"):
        await work_meanwhile()
    assert done


async def test_work_that_fails_is_heard_instead_of_the_part_that_should_start_meanwhile(tmp_path: Path) -> None:
    holder = Ledger(Home.open(tmp_path))
    assert holder.try_lock("starting parts")

    async def work_that_fails() -> None:
        async with stack(tmp_path, patience=0.1, on_wait=lambda _: None).starting("engine"):
            await asyncio.sleep(0.5)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await work_that_fails()


async def test_parts_at_other_addresses_than_the_settings_say_are_refused(tmp_path: Path) -> None:
    runs_elsewhere(tmp_path, *PART_NAMES[:3])
    with pytest.raises(HomeBusy, match=r"registry .*18300.*19000: set LORRY_PORT_BASE"):
        await stack(tmp_path, port_base=19_000, s3_endpoint_url="aws").ensure("registry")
