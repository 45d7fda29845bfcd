"""The pool's small parts: who is inside, and what the slots hold."""

from __future__ import annotations

import asyncio

from serving.engine.pool.crowd import Crowd
from serving.engine.pool.slot_map import SlotMap


async def test_a_crowd_is_waited_for_until_the_last_has_left() -> None:
    crowd = Crowd()
    assert await crowd.wait_until_empty(timeout_seconds=0.01)
    with crowd.inside():
        waiting = asyncio.create_task(crowd.wait_until_empty(timeout_seconds=5))
        with crowd.inside():
            assert len(crowd) == 2
            assert not await crowd.wait_until_empty(timeout_seconds=0.01)
        await asyncio.sleep(0)
        assert not waiting.done()
    assert await waiting


def test_a_slot_holds_one_version_and_a_version_has_one_slot() -> None:
    slots = SlotMap()
    assert slots.put("a", 0) is None
    assert slots.put("a", 1) is None
    assert slots.put("b", 1) == "a"
    assert ("a" in slots, slots.slots(), len(slots)) == (False, {"b": 1}, 1)
    assert (slots.remove("b"), slots.remove("b")) == (True, False)


def test_what_left_a_slot_is_there_until_the_slot_is_filled_again_or_zeroed() -> None:
    slots = SlotMap()
    for slot, version_id in enumerate("abc"):
        slots.put(version_id, slot)
    for version_id in "abc":
        slots.remove(version_id)
    assert (slots.slots(), slots.filled) == ({}, {"a", "b", "c"})
    slots.put("d", 0)
    slots.zeroed("b")
    assert (slots.slots(), slots.filled) == ({"d": 0}, {"c", "d"})


def test_a_version_that_got_another_slot_is_still_in_the_first() -> None:
    slots = SlotMap()
    slots.put("a", 0)
    slots.put("a", 1)
    slots.put("b", 1)
    assert slots.filled == {"a", "b"}
    slots.put("a", 0)
    slots.zeroed("a")
    assert (slots.slots(), slots.filled) == ({"b": 1}, {"b"})
