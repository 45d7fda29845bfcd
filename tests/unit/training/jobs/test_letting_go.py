from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from training.jobs.errors import JobStopped
from training.jobs.workshop.letting_go import end_of, in_thread, unless_stopped

# A worker that is told to stop while it loads something for ten minutes.
LOADING = """
import asyncio, time
from training.jobs.workshop.letting_go import in_thread, unless_stopped

def check():
    raise InterruptedError

async def main():
    try:
        await unless_stopped(in_thread(lambda: time.sleep(600)), check)
    except InterruptedError:
        print("let go")

asyncio.run(main())
"""


def go_on() -> None:
    """No job has to stop."""


async def test_what_long_work_gives_or_raises_reaches_who_waits() -> None:
    assert await unless_stopped(in_thread(lambda: 7), go_on) == 7
    with pytest.raises(ZeroDivisionError):
        await unless_stopped(in_thread(lambda: 1 // 0), go_on)


async def test_a_job_that_must_stop_lets_go_and_the_work_goes_on_for_the_next() -> None:
    stop, finish = asyncio.Event(), threading.Event()

    def check() -> None:
        if stop.is_set():
            raise JobStopped

    work = in_thread(lambda: finish.wait(60))
    waiting = asyncio.create_task(unless_stopped(work, check))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    stop.set()
    with pytest.raises(JobStopped):
        await asyncio.wait_for(waiting, 60)
    assert not work.done()
    finish.set()
    await unless_stopped(end_of(work), go_on)
    assert work.result() is True


async def test_who_comes_after_a_failed_load_does_not_hear_of_its_failure() -> None:
    work = in_thread(lambda: 1 // 0)
    await unless_stopped(end_of(work), go_on)
    assert isinstance(work.exception(), ZeroDivisionError)
    await unless_stopped(end_of(work), go_on)


def test_a_process_that_stops_does_not_wait_for_what_it_loads() -> None:
    done = subprocess.run([sys.executable, "-c", LOADING], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout == "let go\n"
