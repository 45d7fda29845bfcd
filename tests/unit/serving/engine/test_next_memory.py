"""The memory that is kept ready for the next adapter that is opened."""

from __future__ import annotations

import os

import pytest

from serving.engine import next_memory
from serving.engine.next_memory import NextMemory

SIZE = (1 << 20) + 5


def ready(size_bytes: int) -> NextMemory:
    memory = NextMemory()
    memory.take(size_bytes).close()
    memory.make_ready()
    return memory


def test_nothing_is_kept_before_anybody_wanted_something() -> None:
    memory = NextMemory()
    assert memory.is_ready
    memory.make_ready()
    assert memory._ready is None
    with memory.take(8) as taken:
        assert bytes(taken.plain) == bytes(8)


def test_what_was_made_ready_is_handed_out_once_and_can_be_frozen() -> None:
    memory = ready(SIZE)
    kept = memory._ready
    with memory.take(SIZE) as first, memory.take(SIZE) as second:
        assert first is kept
        assert second is not first
        first.plain[:2] = b"xy"
        assert bytes(second.plain[:2]) == b"\0\0"
        first.freeze((("one", SIZE),))


def test_another_size_is_had_from_the_system_and_kept_from_then_on() -> None:
    memory = ready(SIZE)
    with memory.take(16) as taken:
        assert taken.size_bytes == 16
    assert not memory.is_ready
    memory.make_ready()
    assert memory._ready is not None
    assert memory._ready.size_bytes == 16


def test_what_is_of_no_use_is_let_go() -> None:
    before = len(os.listdir("/proc/self/fd"))
    memory = ready(SIZE)
    assert len(os.listdir("/proc/self/fd")) > before
    memory.take(16).close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_no_more_is_kept_than_is_modest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(next_memory, "_MOST_BYTES", SIZE - 1)
    assert ready(SIZE)._ready is None


def test_a_machine_without_memory_says_so_to_who_takes_some(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = NextMemory()
    memory.take(SIZE).close()

    def refuse(*_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "memfd_create", refuse)
    memory.make_ready()
    assert memory._ready is None
    with pytest.raises(OSError, match="open files"):
        memory.take(SIZE)
