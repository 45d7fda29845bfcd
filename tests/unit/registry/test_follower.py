"""Work that follows on another thread: in order, whole, and its failures are heard."""

from __future__ import annotations

import threading

import pytest

from registry.client.follower import Follower


def test_every_piece_is_worked_on_in_order_before_the_block_ends() -> None:
    seen: list[bytes] = []
    with Follower(lambda piece: seen.append(bytes(piece))) as follower:
        for number in range(100):
            follower.follow(memoryview(b"%d" % number))
    assert seen == [b"%d" % number for number in range(100)]


def test_a_failure_is_raised_where_the_next_piece_is_handed_over() -> None:
    failed = threading.Event()

    def work(piece: memoryview) -> None:
        failed.set()
        raise ValueError("no such piece")

    handed = []

    def lead() -> None:
        with Follower(work) as follower:
            follower.follow(memoryview(b"first"))
            assert failed.wait(30)
            for number in range(5):  # by the second of them it is known
                follower.follow(memoryview(b"more"))
                handed.append(number)

    with pytest.raises(ValueError, match="no such piece"):
        lead()
    assert len(handed) < 5


def test_a_failure_at_the_last_piece_is_raised_at_the_end() -> None:
    def lead() -> None:
        with Follower(refuse) as follower:
            follower.follow(memoryview(b"last"))

    with pytest.raises(ValueError, match="the last"):
        lead()


def test_what_ends_the_block_is_raised_and_not_what_failed_behind_it() -> None:
    def lead() -> None:
        with Follower(refuse) as follower:
            follower.follow(memoryview(b"one"))
            raise KeyError

    with pytest.raises(KeyError):
        lead()


def refuse(piece: memoryview) -> None:
    raise ValueError("the last")
