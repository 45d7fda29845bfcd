"""Large values are worked on beside the event loop, and so that others have their turn meanwhile."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kit.beside import HUGE_BYTES, LARGE_BYTES, THREADS, beside, parse_json
from kit.canonical import sha256_json, sha256_json_items

PADDING = "x" * LARGE_BYTES


async def test_what_is_small_is_worked_on_here_and_what_is_large_elsewhere() -> None:
    here = threading.get_ident()
    assert await beside(LARGE_BYTES, threading.get_ident) == here
    assert await beside(LARGE_BYTES + 1, threading.get_ident) != here
    with pytest.raises(ZeroDivisionError):
        await beside(LARGE_BYTES + 1, lambda: 1 // 0)


async def test_the_loop_goes_on_while_every_thread_is_at_work() -> None:
    may_end = threading.Event()
    working = [asyncio.create_task(beside(LARGE_BYTES + 1, may_end.wait, 60)) for _ in range(THREADS)]
    waiting = asyncio.create_task(beside(LARGE_BYTES + 1, lambda: "done"))
    await asyncio.sleep(0.05)
    assert not any(task.done() for task in (*working, waiting))
    may_end.set()
    assert await waiting == "done"
    assert await asyncio.gather(*working) == [True] * THREADS


async def test_what_takes_long_does_not_stand_before_what_does_not() -> None:
    may_end = threading.Event()
    huge = [asyncio.create_task(beside(HUGE_BYTES + 1, may_end.wait, 60)) for _ in range(THREADS + 1)]
    await asyncio.sleep(0)
    assert await asyncio.wait_for(beside(HUGE_BYTES, lambda: "done"), 30) == "done"
    assert not any(task.done() for task in huge)
    may_end.set()
    assert await asyncio.gather(*huge) == [True] * (THREADS + 1)


@pytest.mark.parametrize(
    "value",
    [
        PADDING,
        [PADDING, 1, -2.5, 1e300, True, False, None, "", 'é\n\t"\\/\U0001f600', [], {}, [[{"a": [{}]}]]],
        {"": PADDING, "a": {"b": [1, {"c": None}]}, "ü": "\u2028"},
        {f"key {number}": [number, number / 7] for number in range(10_000)},
    ],
)
@pytest.mark.parametrize("shape", [{}, {"ensure_ascii": False}, {"indent": 3}])
def test_a_large_document_is_read_as_json_reads_it(value: Any, shape: dict[str, Any]) -> None:
    body = json.dumps(value, **shape).encode()
    assert len(body) > LARGE_BYTES
    assert parse_json(body) == json.loads(body) == value


def refused(read: Callable[[bytes], Any], body: bytes) -> tuple[type[ValueError], str]:
    try:
        read(body)
    except ValueError as exc:
        return type(exc), str(exc)
    raise AssertionError("it was read")


@pytest.mark.parametrize("end", ["", "]", '"', "tru", "{", "1 2", "\x01", '{"a" 1}', "9" * 5000])
def test_what_is_no_json_is_refused_as_json_refuses_it(end: str) -> None:
    body = f'["{PADDING}", {end}'.encode()
    assert refused(parse_json, body) == refused(json.loads, body)


@pytest.fixture
def often() -> Iterator[None]:
    """Python offers every thread its turn much more often than it usually does."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("often")
def test_other_threads_have_their_turn_while_a_large_document_is_read() -> None:
    body = json.dumps([{"a": number, "b": [str(number)]} for number in range(50_000)]).encode()
    turns, stop = [0], threading.Event()

    def take_turns() -> None:
        while not stop.wait(1e-5):
            turns[0] += 1

    other = threading.Thread(target=take_turns)
    other.start()
    try:
        before = turns[0]
        parse_json(body)
        in_between = turns[0] - before
    finally:
        stop.set()
        other.join()
    assert in_between > 3, "one call into C that reads all of it leaves nobody a turn"


def test_items_are_digested_as_the_list_of_them() -> None:
    for items in ([], [1], [{"b": 1, "a": "é"}, None, [2.5]]):
        assert sha256_json_items(iter(items)) == sha256_json(items)
