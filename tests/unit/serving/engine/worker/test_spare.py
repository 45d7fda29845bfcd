"""The memory that is kept ready for the next adapter."""

from __future__ import annotations

import mmap

import pytest

from serving.engine.worker import spare as module
from serving.engine.worker.spare import Spare

SIZE = 3 * (1 << 20) + 5


def ready(size_bytes: int) -> Spare:
    """A spare from which so much was taken once, and which made as much ready."""
    spare = Spare()
    spare.take(size_bytes)
    spare.make_ready(while_=lambda: True)
    return spare


def test_nothing_is_kept_before_anybody_wanted_something() -> None:
    spare = Spare()
    assert spare.is_ready
    assert bytes(spare.take(8)) == bytes(8)
    assert not spare.is_ready


def test_what_was_made_ready_is_handed_out_once() -> None:
    spare = ready(SIZE)
    assert spare.is_ready
    kept = spare._memory
    first, second = spare.take(SIZE), spare.take(SIZE)
    assert first is kept
    assert second is not first
    assert (len(first), len(second)) == (SIZE, SIZE)
    first[:2] = b"xy"
    assert bytes(second[:2]) == b"\0\0"


def test_another_size_is_had_from_the_system_and_kept_from_then_on() -> None:
    spare = ready(SIZE)
    assert len(spare.take(16)) == 16
    assert not spare.is_ready
    spare.make_ready(while_=lambda: True)
    assert (spare.is_ready, len(spare.take(16))) == (True, 16)


def test_whoever_waits_interrupts_it_and_takes_what_there_is() -> None:
    spare, looks = Spare(), iter([True, False])
    spare.take(SIZE)
    spare.make_ready(while_=lambda: next(looks))
    assert not spare.is_ready
    kept = spare._memory
    assert spare.take(SIZE) is kept


def test_no_more_is_kept_than_is_modest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_BYTES", SIZE - 1)
    spare = Spare()
    spare.take(SIZE)
    assert spare.is_ready


def test_a_system_without_memory_is_not_asked_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    spare = Spare()
    spare.take(SIZE)

    def refuse(size_bytes: int) -> mmap.mmap:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(module, "new_memory", refuse)
    spare.make_ready(while_=lambda: True)
    assert spare.is_ready
    with pytest.raises(OSError, match="allocate"):
        spare.take(SIZE)
