"""`lorry up` and the processes it owns, when either is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import pytest

from tests.support.ports import free_port_block

CODE = """
import asyncio, sys
from pathlib import Path
from lorry.home import Home
from lorry.local.plan import Plan
from lorry.local.stack import open_stack
from lorry.settings import LorrySettings

async def main():
    settings = LorrySettings()
    plan = Plan(settings=settings, home=Home.open(settings.home))
    async with open_stack(plan, base_directory=Path, on_state=lambda *_: None, on_wait=print) as stack:
        await stack.ensure("registry")
        print("up", flush=True)
        await stack.watch()

asyncio.run(main())
"""


@pytest.fixture
def environment(lasting_directory: Path) -> dict[str, str]:
    ports = free_port_block(22)
    return {**os.environ, "LORRY_HOME": str(lasting_directory / uuid.uuid4().hex), "LORRY_PORT_BASE": str(ports)}


def start(environment: dict[str, str]) -> subprocess.Popen[str]:
    """Start the stores and the registry as `lorry up` does; an engine would only add a minute."""
    process = subprocess.Popen(
        [sys.executable, "-c", CODE], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n", process.communicate()[1]
    return process


def parts(environment: dict[str, str]) -> list[int]:
    processes = json.loads((Path(environment["LORRY_HOME"]) / "run" / "parts.json").read_text())
    return [process["pid"] for process in processes["parts"]]


def lives(pid: int) -> bool:
    """Whether a process runs; one that has ended, and that nobody has asked how yet, does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_parts_whose_owner_was_killed_are_stopped_by_the_next_one(environment: dict[str, str]) -> None:
    first = start(environment)
    orphans = parts(environment)
    first.kill()
    first.communicate()
    assert all(psutil.pid_exists(pid) for pid in orphans)
    second = start(environment)
    try:
        assert not any(lives(pid) for pid in orphans)
        assert not set(parts(environment)) & set(orphans)
    finally:
        second.send_signal(signal.SIGINT)
        second.communicate(timeout=300)


def test_a_part_that_dies_is_reported_with_its_name_and_the_others_are_stopped(environment: dict[str, str]) -> None:
    process = start(environment)
    own = parts(environment)
    registry = next(pid for pid in own if "registry" in psutil.Process(pid).cmdline())
    os.kill(registry, signal.SIGKILL)
    _, err = process.communicate(timeout=300)
    assert "registry ended by itself with code -9" in err
    assert not any(lives(pid) for pid in own)


def test_an_interrupt_stops_everything_and_the_state_survives(environment: dict[str, str]) -> None:
    process = start(environment)
    own = parts(environment)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=300)
    _gone(own)
    again = start(environment)
    again.send_signal(signal.SIGINT)
    again.communicate(timeout=300)


def _gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 60
    while any(lives(pid) for pid in pids):
        assert time.monotonic() < deadline, "a part outlived its owner"
        time.sleep(0.1)
