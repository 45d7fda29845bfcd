"""Threads that wait on the event that ends them, as a library's do, slowed and woken."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue

from training.jobs.pace import Pace

_LONG_SECONDS = 30.0


class Asking:
    """A thread that asks every millisecond until it is told to end."""

    def __init__(self) -> None:
        self.asked: SimpleQueue[None] = SimpleQueue()
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self.stop.wait(timeout=0.001):
            self.asked.put(None)

    def has_stopped_asking(self) -> bool:
        """Say whether nothing is asked any more for a while."""
        for _ in range(10_000):
            try:
                self.asked.get(timeout=0.2)
            except Empty:
                return True
        return False


@contextmanager
def asking(pace: Pace) -> Iterator[Asking]:
    thread = Asking()
    pace.slow(thread.stop)
    thread.thread.start()
    try:
        yield thread
    finally:
        thread.stop.set()
        thread.thread.join(5)


def test_a_thread_asks_by_itself_until_it_is_calmed_and_at_once_when_it_is_woken() -> None:
    pace = Pace(quiet_seconds=_LONG_SECONDS)
    with asking(pace) as thread:
        thread.asked.get(timeout=60)
        pace.calm()
        assert thread.has_stopped_asking()
        pace.wake()
        thread.asked.get(timeout=60)


def test_a_calm_thread_asks_now_and_then_all_the_same() -> None:
    pace = Pace(quiet_seconds=0.3)
    with asking(pace) as thread:
        pace.calm()
        assert thread.has_stopped_asking()
        thread.asked.get(timeout=60)


def test_a_calm_thread_ends_at_once_when_it_is_told_to() -> None:
    pace = Pace(quiet_seconds=_LONG_SECONDS)
    with asking(pace) as thread:
        pace.calm()
        assert thread.has_stopped_asking()
        thread.stop.set()
        thread.thread.join(5)
        assert not thread.thread.is_alive()


def test_a_thread_that_asks_for_no_pause_or_that_has_ended_is_not_kept_waiting() -> None:
    pace, stop = Pace(quiet_seconds=_LONG_SECONDS), threading.Event()
    pace.slow(stop)
    assert stop.wait(0) is False
    stop.set()
    assert stop.wait(_LONG_SECONDS) is True
    assert stop.wait() is True


def test_one_word_wakes_all_threads() -> None:
    pace = Pace(quiet_seconds=_LONG_SECONDS)
    one, two = Asking(), Asking()
    for each in (one, two):
        pace.slow(each.stop)
        each.thread.start()
    pace.calm()
    assert one.has_stopped_asking()
    assert two.has_stopped_asking()
    pace.wake()
    for each in (one, two):
        each.asked.get(timeout=60)
        each.stop.set()
        each.thread.join(5)
