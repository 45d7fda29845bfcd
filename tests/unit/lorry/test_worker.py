from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lorry.stages.worker import Interrupted, one_at_a_time, run_in_thread


def test_what_another_makes_is_waited_for_and_found(tmp_path: Path) -> None:
    target, order = tmp_path / "runs" / "run", []
    held = threading.Event()

    def first() -> None:
        with one_at_a_time(target, checkpoint=lambda: None):
            held.set()
            time.sleep(0.7)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    held.wait()
    with one_at_a_time(target, checkpoint=lambda: None):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]


def test_two_runs_do_not_wait_for_each_other(tmp_path: Path) -> None:
    with one_at_a_time(tmp_path / "a", checkpoint=lambda: None), one_at_a_time(tmp_path / "b", checkpoint=lambda: None):
        pass


def test_an_interruption_ends_the_waiting(tmp_path: Path) -> None:
    asked = 0

    def checkpoint() -> None:
        nonlocal asked
        asked += 1
        if asked > 2:
            raise Interrupted

    with (
        one_at_a_time(tmp_path / "run", checkpoint=lambda: None),
        pytest.raises(Interrupted),
        one_at_a_time(tmp_path / "run", checkpoint=checkpoint),
    ):
        pytest.fail("entered while another held it")


async def test_an_interrupted_piece_of_work_says_that_it_ends_its_step(capsys: pytest.CaptureFixture[str]) -> None:
    started, ended = threading.Event(), threading.Event()

    def work(checkpoint: Callable[[], None]) -> None:
        started.set()
        try:
            while True:
                checkpoint()
                time.sleep(0.01)
        finally:
            ended.set()

    task = asyncio.create_task(run_in_thread(work))
    await asyncio.to_thread(started.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(ended.wait, 60)
    assert "stopping, when this step is done …" in capsys.readouterr().err
