import asyncio
import os
import socket
import subprocess
import sys

import pytest

from kit.errors import DatabaseUnavailable
from kit.workers import again_and_again, has_ended, identify_process


def test_a_process_that_runs_has_not_ended_and_one_of_another_machine_cannot_be_told() -> None:
    boot = identify_process()
    assert not has_ended(boot, host=socket.gethostname())
    assert not has_ended("1:0.0", host="another-machine")


def test_a_later_process_of_the_same_number_is_told_from_the_earlier_one() -> None:
    assert has_ended(f"{os.getpid()}:1.0", host=socket.gethostname())


def test_a_process_that_is_gone_has_ended_and_what_names_none_has_not() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert has_ended(f"{gone.pid}:1.0", host=socket.gethostname())
    assert not has_ended("nonsense", host=socket.gethostname())


@pytest.mark.parametrize("error", [DatabaseUnavailable(), OSError(), ValueError("a mistake of ours")])
async def test_a_chore_that_fails_is_done_again(error: Exception) -> None:
    done = asyncio.Event()
    calls = 0

    async def chore() -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise error
        done.set()

    task = asyncio.create_task(again_and_again(chore, 0.0, of="test"))
    try:
        await asyncio.wait_for(done.wait(), 5)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
