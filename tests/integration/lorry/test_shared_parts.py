"""Commands of one home that use parts together: whoever comes first starts them, whoever goes last stops them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import uuid
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from lorry.context import quiet
from lorry.home import Home
from lorry.local.plan import Plan
from lorry.local.stack import Stack
from lorry.processes import process_start
from lorry.settings import LorrySettings
from tests.support.ports import free_port_block

# A command that uses PostgreSQL until it is told to stop, and can still write to it then.
COMMAND = """
import asyncio, signal, sys
from pathlib import Path
from lorry.context import quiet
from lorry.home import Home
from lorry.local.plan import Plan
from lorry.local.stack import open_stack
from lorry.settings import LorrySettings

async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
    settings = LorrySettings()
    plan = Plan(settings=settings, home=Home.open(settings.home))
    async with open_stack(plan, base_directory=Path, on_state=quiet, on_wait=lambda _: None) as stack:
        await stack.ensure("postgres")
        print("up", flush=True)
        await stop.wait()

asyncio.run(main())
"""


@pytest.fixture
def settings(lasting_directory: Path) -> LorrySettings:
    return LorrySettings(home=lasting_directory / uuid.uuid4().hex, port_base=free_port_block(22))


def stack(settings: LorrySettings, told: list[str] | None = None) -> Stack:
    plan = Plan(settings=settings, home=Home.open(settings.home))
    hear = told.append if told is not None else print
    return Stack(plan, base_directory=Path, on_state=quiet, on_wait=hear)


def kill_family(pid: int) -> None:
    """Kill a process and its children, who may be gone by then since their parent is."""
    for each in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            each.kill()


def pids(settings: LorrySettings) -> dict[str, int]:
    parts = json.loads((settings.home / "run" / "parts.json").read_text())["parts"]
    return {part["name"]: part["pid"] for part in parts}


def runs(pid: int) -> bool:
    return process_start(pid) is not None


async def test_parts_are_left_to_whoever_uses_them_and_stopped_by_the_last(settings: LorrySettings) -> None:
    one, other = stack(settings), stack(settings)
    await one.ensure("seaweedfs")
    await other.ensure("postgres")
    started = pids(settings)
    (user,) = await one.stop()
    assert user.parts == ("postgres",)
    assert pids(settings) == {"postgres": started["postgres"]}
    assert (runs(started["postgres"]), runs(started["seaweedfs"])) == (True, False), "nobody used the store any more"
    third = stack(settings)
    await third.ensure("postgres")
    assert pids(settings) == {"postgres": started["postgres"]}
    await other.stop()
    assert runs(started["postgres"])
    await third.stop()
    assert not runs(started["postgres"])


async def test_commands_that_begin_together_start_every_part_once(settings: LorrySettings) -> None:
    stacks = [stack(settings) for _ in range(4)]
    await asyncio.gather(*(each.ensure("postgres") for each in stacks))
    found = pids(settings)
    assert await asyncio.gather(*(asyncio.to_thread(runs, found["postgres"]) for _ in stacks)) == [True] * 4
    await asyncio.gather(*(each.stop() for each in stacks))
    assert not runs(found["postgres"])
    assert pids(settings) == {}


@pytest.mark.parametrize("ends_by", [signal.SIGINT, signal.SIGKILL])
async def test_a_command_that_ends_takes_nothing_from_another_process(
    settings: LorrySettings, ends_by: signal.Signals
) -> None:
    environment = {"LORRY_HOME": str(settings.home), "LORRY_PORT_BASE": str(settings.port_base)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", COMMAND), env=os.environ | environment, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"up\n"
    ours = stack(settings)
    await ours.ensure("postgres")
    (pid,) = pids(settings).values()
    process.send_signal(ends_by)
    await process.wait()
    assert runs(pid)
    assert ours.dead() == []
    await ours.stop()
    assert not runs(pid), "the last one stops what it has not started itself"


async def test_a_part_that_dies_is_started_again_for_who_goes_on(settings: LorrySettings) -> None:
    told: list[str] = []
    ours = stack(settings, told)
    await ours.ensure("postgres")
    (pid,) = pids(settings).values()
    keeper = asyncio.create_task(ours.keep())
    try:
        kill_family(pid)
        for _ in range(300):
            if not ours.dead() and pids(settings)["postgres"] != pid:
                break
            await asyncio.sleep(0.1)
        assert runs(pids(settings)["postgres"])
        assert "postgres ended by itself" in told[0]
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
        await ours.stop()


async def test_who_keeps_parts_running_goes_on_whatever_goes_wrong(settings: LorrySettings) -> None:
    told: list[str] = []
    ours = stack(settings, told)
    await ours.ensure("postgres")
    (pid,) = pids(settings).values()
    books = settings.home / "run" / "parts.json"
    kept = books.read_bytes()
    books.unlink()
    books.mkdir()  # what can be neither read nor replaced, as on a disk that fails
    keeper = asyncio.create_task(ours.keep())
    try:
        for _ in range(300):
            if told:
                break
            await asyncio.sleep(0.1)
        assert "IsADirectoryError" in told[0]
        books.rmdir()
        books.write_bytes(kept)
        kill_family(pid)
        for _ in range(600):
            if not ours.dead() and pids(settings)["postgres"] != pid:
                break
            await asyncio.sleep(0.1)
        assert runs(pids(settings)["postgres"])
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
        await ours.stop()
